//! I/O: serial ports as Modbus needs them.
//!
//! The path is resolved at every opening, so that an adapter that comes back under another number is
//! found again through `/dev/serial/by-id`.

use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::termios::{ControlModes, ioctl_tiocexcl};
use serial2_tokio::rs4xx::{Rs485Config, TransceiverMode};
use serial2_tokio::{CharSize, FlowControl, SerialPort, Settings, StopBits};

use crate::config::{Parity, Rs485, Serial};

/// Opens and sets a port, and reads back whether it is set.
///
/// # Errors
/// The system's, when there is no such port, it is in use, or it cannot do what is asked.
pub(super) fn open(port: &Serial, rs485: Option<&Rs485>) -> io::Result<SerialPort> {
    let opened = SerialPort::open(&port.path, |settings: Settings| set(settings, port))?;
    claim(port)?;
    if let Some(rs485) = rs485 {
        opened.set_rs4xx_mode(mode(rs485)).map_err(|error| {
            let what =
                format!("the port's driver does not switch RS-485 ({error}): leave rs485 out");
            io::Error::new(error.kind(), what)
        })?;
    }
    opened.discard_buffers()?;
    Ok(opened)
}

fn set(mut settings: Settings, port: &Serial) -> io::Result<Settings> {
    settings.set_raw();
    settings.set_baud_rate(port.baud)?;
    settings.set_char_size(if port.data_bits == 7 { CharSize::Bits7 } else { CharSize::Bits8 });
    settings.set_stop_bits(if port.stop_bits == 2 { StopBits::Two } else { StopBits::One });
    settings.set_flow_control(FlowControl::None);
    settings.set_parity(match port.parity {
        Parity::None => serial2_tokio::Parity::None,
        Parity::Even | Parity::Space => serial2_tokio::Parity::Even,
        Parity::Odd | Parity::Mark => serial2_tokio::Parity::Odd,
    });
    // "Stick" parity makes of odd a mark and of even a space.
    let stick = ControlModes::CMSPAR.bits();
    let flags = &mut settings.as_termios_mut().c_cflag;
    match port.parity {
        Parity::Mark | Parity::Space => *flags |= stick,
        Parity::None | Parity::Even | Parity::Odd => *flags &= !stick,
    }
    Ok(settings)
}

/// A second program on the port would take answers away; from now on opening it fails with "busy"
/// (not for root). Exclusiveness belongs to the port, not to the descriptor it is asked through.
fn claim(port: &Serial) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let same = rustix::fs::open(&port.path, flags, Mode::empty())?;
    Ok(ioctl_tiocexcl(same)?)
}

/// The kernel takes a pair of levels that are the same for "high during, low after", so only the
/// reverse has to be named.
fn mode(rs485: &Rs485) -> TransceiverMode {
    let mut config = Rs485Config::new();
    config.set_delay_before_send(rs485.delay_rts_before_send);
    config.set_delay_after_send(rs485.delay_rts_after_send);
    config.set_invert_rts(rs485.rts_high_after_send && !rs485.rts_high_during_send);
    config.set_full_duplex(rs485.rx_during_tx);
    TransceiverMode::Rs485(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_five_names_become_what_the_kernel_knows() {
        let config = |rs485: &Rs485| match mode(rs485) {
            TransceiverMode::Rs485(config) => config,
            other @ (TransceiverMode::Default | TransceiverMode::Rs422) => panic!("{other:?}"),
        };
        let usual = config(&Rs485 {
            delay_rts_before_send: Duration::from_millis(1),
            delay_rts_after_send: Duration::from_millis(2),
            rts_high_during_send: true,
            ..Rs485::default()
        });
        assert_eq!(usual.get_delay_before_send(), Duration::from_millis(1));
        assert_eq!(usual.get_delay_after_send(), Duration::from_millis(2));
        assert!(!usual.get_invert_rts() && !usual.get_full_duplex());
        let reverse =
            config(&Rs485 { rts_high_after_send: true, rx_during_tx: true, ..Rs485::default() });
        assert!(reverse.get_invert_rts() && reverse.get_full_duplex());
    }
}
