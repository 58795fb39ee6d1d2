//! I/O: reads of more registers than one request may ask for, in pieces. Only bursts are that long:
//! a device that offers one keeps it still while it is fetched. When a piece fails, all of it has
//! failed: half a burst is none.

use std::time::Duration;

use crate::config::Table;
use crate::sources::line::{Answer, Line, LineError};

/// Reads `count` registers (or bits) from `address` on in requests of at most `longest`, each with
/// its own `deadline`. What fits into one request is one request.
///
/// # Errors
/// The first piece's that failed. An exception is an answer, and ends the reading.
pub async fn read(
    line: &mut Line,
    unit: u8,
    table: Table,
    (address, count): (u16, u16),
    longest: u16,
    deadline: Duration,
) -> Result<Answer, LineError> {
    let longest = longest.max(1);
    if count <= longest {
        return line.read(unit, table, address, count, deadline).await;
    }
    let mut words = Vec::with_capacity(usize::from(count));
    let mut bits = Vec::new();
    for start in (0..count).step_by(usize::from(longest)) {
        let piece = longest.min(count - start);
        match line.read(unit, table, address.saturating_add(start), piece, deadline).await? {
            Answer::Registers(more) => words.extend(more),
            Answer::Bits(more) => bits.extend(more),
            exception @ Answer::Exception(_) => return Ok(exception),
        }
    }
    Ok(if bits.is_empty() { Answer::Registers(words) } else { Answer::Bits(bits) })
}
