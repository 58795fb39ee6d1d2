//! A door between gateway and broker: closed, no connection comes through, and those that were
//! through are cut.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The door.
pub(crate) struct Gate {
    pub(crate) port: u16,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    /// An open door to a port on this machine.
    #[expect(clippy::disallowed_methods, reason = "a server of the test's own")]
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, door) = watch::channel(true);
        let task = tokio::spawn(async move {
            loop {
                let (mut inside, _) = listener.accept().await.unwrap();
                let mut door = door.clone();
                if !*door.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut outside) = TcpStream::connect(("127.0.0.1", target)).await else {
                        return;
                    };
                    tokio::select! {
                        // Either side may go at any time; that is what the test is about.
                        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
                        _ = door.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { port, open, task }
    }

    /// Lets connections through, or cuts them.
    pub(crate) fn set(&self, open: bool) {
        self.open.send_replace(open);
    }
}
