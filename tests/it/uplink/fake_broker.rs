//! A broker that does as it is told: MQTT 3.1.1 in bare bytes, so that no library's good manners
//! are in the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How the broker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Takes the connection and never says a word.
    Mute,
    /// Answers CONNECT with this code.
    Refuses(u8),
    /// Answers pings, acknowledges nothing.
    Hoards,
    /// Of the first this many publishes, acknowledges every third under a wrong id; then behaves.
    Confused(u32),
}

/// A publish as it came.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// The broker.
pub(crate) struct FakeBroker {
    pub(crate) port: u16,
    /// Told at every connection, with the time since the broker was started.
    pub(crate) connects: mpsc::Receiver<Duration>,
    pub(crate) published: mpsc::Receiver<Published>,
    task: JoinHandle<()>,
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeBroker {
    #[expect(clippy::disallowed_methods, reason = "a server of the test's own")]
    pub(crate) async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connect, connects) = mpsc::channel(10_000);
        let (publish, published) = mpsc::channel(100_000);
        let count = Arc::new(AtomicU32::new(0));
        let began = tokio::time::Instant::now();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connect.send(began.elapsed()).await.unwrap();
                let (publish, count) = (publish.clone(), Arc::clone(&count));
                tokio::spawn(async move { serve(stream, manners, publish, &count).await });
            }
        });
        Self { port, connects, published, task }
    }
}

/// The type byte and the body of the next packet; `None` when the peer has gone.
async fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let mut length = 0_usize;
    for shift in (0..).step_by(7) {
        let byte = stream.read_u8().await.ok()?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((first, body))
}

async fn serve(
    mut stream: TcpStream,
    manners: Manners,
    publish: mpsc::Sender<Published>,
    count: &AtomicU32,
) -> Option<()> {
    loop {
        let (first, body) = packet(&mut stream).await?;
        match (first >> 4, manners) {
            (_, Manners::Mute) => {}
            (1, Manners::Refuses(code)) => stream.write_all(&[0x20, 2, 0, code]).await.ok()?,
            (1, _) => stream.write_all(&[0x20, 2, 0, 0]).await.ok()?,
            (3, _) => {
                let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..end].to_vec()).unwrap();
                let mut id = u16::from_be_bytes([body[end], body[end + 1]]);
                publish.send(Published { topic, payload: body[end + 2..].to_vec() }).await.ok()?;
                let number = count.fetch_add(1, Ordering::Relaxed);
                if let Manners::Confused(until) = manners
                    && number < until
                    && number % 3 == 2
                {
                    id = id.wrapping_add(7).max(1);
                }
                if manners != Manners::Hoards {
                    let [high, low] = id.to_be_bytes();
                    stream.write_all(&[0x40, 2, high, low]).await.ok()?;
                }
            }
            (12, _) => stream.write_all(&[0xd0, 0]).await.ok()?,
            _ => {}
        }
    }
}
