//! A Modbus TCP server on threads of its own: holding registers that a test sets, for daemons that
//! are processes of their own.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

type Words = Arc<Mutex<BTreeMap<u16, u16>>>;

/// A running server. It lives as long as the test process.
#[derive(Debug, Clone)]
pub(crate) struct Registers {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    words: Words,
}

impl Registers {
    /// Starts a server on a free port; all registers are 0.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let words = Words::default();
        let served = Arc::clone(&words);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let words = Arc::clone(&served);
                std::thread::spawn(move || serve(stream, &words));
            }
        });
        Self { address, words }
    }

    /// Puts words from `address` on.
    pub(crate) fn put(&self, address: u16, words: impl IntoIterator<Item = u16>) {
        self.words.lock().unwrap().extend((address..).zip(words));
    }

    /// Puts a 32-bit float, high word first.
    pub(crate) fn set(&self, address: u16, value: f32) {
        let bits = value.to_bits();
        let mut words = self.words.lock().unwrap();
        words.insert(address, u16::try_from(bits >> 16).unwrap());
        words.insert(address + 1, u16::try_from(bits & 0xffff).unwrap());
    }
}

fn serve(mut stream: TcpStream, words: &Words) {
    stream.set_nodelay(true).ok();
    let mut request = [0_u8; 12];
    while stream.read_exact(&mut request).is_ok() {
        let first = u16::from_be_bytes([request[8], request[9]]);
        let count = u16::from_be_bytes([request[10], request[11]]);
        let mut pdu = vec![request[7], u8::try_from(count * 2).unwrap_or(u8::MAX)];
        if count > 125 {
            // As devices do: a longer answer does not fit into a frame.
            pdu = vec![request[7] | 0x80, 3];
        } else {
            let words = words.lock().unwrap();
            for address in first..first + count {
                pdu.extend(words.get(&address).copied().unwrap_or(0).to_be_bytes());
            }
        }
        let mut reply = request[..4].to_vec();
        reply.extend(u16::try_from(pdu.len() + 1).unwrap().to_be_bytes());
        reply.push(request[6]);
        reply.extend(pdu);
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}
