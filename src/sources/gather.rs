//! Pure: the answer to a planned read becomes what a batch holds: readings, texts and bursts.

use crate::config::Point;
use crate::domain::ids::TagKey;
use crate::domain::reading::{Extras, RawReading, RawText, RawValue, RawWaveform, Reason};
use crate::domain::time::Timestamp;
use crate::sources::decode::{self, Value};
use crate::sources::line::Answer;
use crate::sources::poll_class::{PlannedRead, PollClass};

/// What one answer brought.
#[derive(Debug, Default, PartialEq)]
pub struct Gathered {
    /// Numbers, and failures of points of any type.
    pub readings: Vec<RawReading>,
    /// Texts and bursts; `None` almost always.
    pub extras: Option<Box<Extras>>,
}

impl Gathered {
    /// Whether it brought nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.readings.is_empty() && self.extras.is_none()
    }

    /// Nothing but the failure of one point.
    #[must_use]
    pub fn failed(tag: TagKey, reason: Reason, arrived: Timestamp) -> Self {
        let (value, source_time, retained) = (RawValue::Failed(reason), None, false);
        let reading = RawReading { tag, source_time, arrived, value, retained };
        Self { readings: vec![reading], extras: None }
    }

    /// Takes in what a point holds by an answer that arrived at `arrived` and began at `address`.
    pub fn point(
        &mut self,
        tag: TagKey,
        point: &Point,
        address: u16,
        answer: &Answer,
        arrived: Timestamp,
    ) {
        let (source_time, retained) = (None, false);
        let value = match answer {
            Answer::Registers(words) => decode::held(point, address, words),
            Answer::Bits(bits) => match decode::coil(point, address, bits) {
                RawValue::Number(number) => Ok(Value::Number(number)),
                RawValue::Scaled(..) => Err(Reason::Config),
                RawValue::Failed(reason) => Err(reason),
            },
            Answer::Exception(_) => Err(Reason::Device),
        };
        match value {
            Ok(Value::Text(text)) => {
                let extras = self.extras.get_or_insert_default();
                extras.texts.push(RawText { tag, source_time, arrived, text, retained });
            }
            Ok(Value::Samples(samples)) => {
                let extras = self.extras.get_or_insert_default();
                extras.waveforms.push(RawWaveform { tag, source_time, arrived, samples, retained });
            }
            Ok(Value::Number(number)) => {
                let value = RawValue::Number(number);
                self.readings.push(RawReading { tag, source_time, arrived, value, retained });
            }
            Err(reason) => {
                let value = RawValue::Failed(reason);
                self.readings.push(RawReading { tag, source_time, arrived, value, retained });
            }
        }
    }

    /// Takes in what an answer brought of the points of a read.
    pub fn read(
        &mut self,
        class: &PollClass,
        read: &PlannedRead,
        answer: &Answer,
        arrived: Timestamp,
    ) {
        self.readings.reserve(read.block.points.len());
        for &place in read.block.points.iter() {
            let point = &class.points[place];
            self.point(point.key, &point.point, read.block.address, answer, arrived);
        }
    }
}
