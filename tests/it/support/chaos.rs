//! A TCP proxy that does to answers what networks do: slices them, delays them, cuts them off,
//! swallows them, damages them. What a connection suffers is decided when it is made.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What happens to the bytes that come from the server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chaos {
    /// Nothing.
    Pass,
    /// One byte at a time, with this pause before each.
    Slice(Duration),
    /// All of it later.
    Delay(Duration),
    /// After so many bytes the connection ends, with RST or FIN.
    Cut { after: usize, reset: bool },
    /// After so many bytes nothing comes any more, and the connection stays.
    Swallow { after: usize },
    /// This byte is damaged.
    Damage { byte: usize },
}

/// A running proxy; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before `server`; `decide` is told the number of the connection, from 0.
    #[expect(clippy::disallowed_methods, reason = "the other end of the wire is not the daemon")]
    pub(crate) async fn start(
        server: SocketAddr,
        decide: impl FnMut(u64) -> Chaos + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let decide = Arc::new(Mutex::new(decide));
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut number = 0;
            while let Ok((client, _)) = listener.accept().await {
                let chaos = (decide.lock().unwrap())(number);
                number += 1;
                connections.spawn(carry(client, server, chaos));
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, server: SocketAddr, chaos: Chaos) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = async move {
        let mut bytes = [0; 512];
        let mut passed = 0;
        while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
            let part = &mut bytes[..length];
            match chaos {
                Chaos::Pass => {}
                Chaos::Delay(pause) => tokio::time::sleep(pause).await,
                Chaos::Slice(pause) => {
                    for &mut byte in part {
                        tokio::time::sleep(pause).await;
                        if to_client.write_all(&[byte]).await.is_err() {
                            return;
                        }
                    }
                    continue;
                }
                Chaos::Cut { after, reset } if passed + length >= after => {
                    to_client.write_all(&part[..after - passed]).await.ok();
                    if reset {
                        // Closing without lingering sends RST instead of FIN.
                        to_client.as_ref().set_zero_linger().ok();
                    }
                    return;
                }
                Chaos::Swallow { after } if passed + length >= after => {
                    to_client.write_all(&part[..after - passed]).await.ok();
                    std::future::pending::<()>().await;
                }
                Chaos::Damage { byte } if (passed..passed + length).contains(&byte) => {
                    part[byte - passed] ^= 0x20;
                }
                Chaos::Cut { .. } | Chaos::Swallow { .. } | Chaos::Damage { .. } => {}
            }
            passed += length;
            if to_client.write_all(part).await.is_err() {
                return;
            }
        }
    };
    let forth = async move { tokio::io::copy(&mut from_client, &mut to_server).await };
    tokio::select! {
        () = back => {}
        _ = forth => {}
    }
}
