//! A mosquitto of our own, on a free port.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// A running broker; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Mosquitto {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    child: Child,
    directory: tempfile::TempDir,
    /// Lines of its configuration after the listener.
    settings: String,
}

/// A test must not lose messages to the default queue limit of 1,000.
const BOUNDLESS: &str = "max_queued_messages 0\nmax_inflight_messages 0";

impl Mosquitto {
    /// Starts a broker for tests that wait for processes, not for tasks.
    pub(crate) fn start_blocking() -> Option<Self> {
        blocking(Self::start())
    }

    /// Kills the broker and starts it again, as [`Self::restart`].
    pub(crate) fn restart_blocking(&mut self) {
        blocking(self.restart());
    }

    /// Starts a broker; `None` (and a line saying so) when it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(BOUNDLESS).await
    }

    /// The same with these lines in its configuration, after its listener.
    pub(crate) async fn start_with(settings: &str) -> Option<Self> {
        // It cannot be given port 0, so it is started again when somebody took the port meanwhile.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let directory = tempfile::tempdir().unwrap();
            let Some(child) = Self::spawn(port, &directory, settings) else {
                super::wait::skip("mosquitto");
                return None;
            };
            let settings = settings.to_owned();
            let mut broker = Self { port, child, directory, settings };
            if broker.is_ready().await {
                return Some(broker);
            }
        }
        panic!("mosquitto did not start on ten ports");
    }

    fn spawn(port: u16, directory: &tempfile::TempDir, settings: &str) -> Option<Child> {
        let path = directory.path().join("mosquitto.conf");
        let mut file = std::fs::File::create(&path).unwrap();
        writeln!(file, "listener {port} 127.0.0.1\nallow_anonymous true\n{settings}").unwrap();
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "mosquitto"];
        program.into_iter().find_map(|program| {
            let mut command = Command::new(program);
            command.arg("-c").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().ok()
        })
    }

    async fn is_ready(&mut self) -> bool {
        loop {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return self.child.try_wait().unwrap().is_none();
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Stops the broker in its tracks: connections stay, nothing is read or answered.
    pub(crate) fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets a frozen broker go on.
    pub(crate) fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        let process = rustix::process::Pid::from_raw(id).expect("a child has a process id");
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// Kills the broker and starts it again on its port, its sessions lost.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        loop {
            self.child =
                Self::spawn(self.port, &self.directory, &self.settings).expect("it started before");
            if self.is_ready().await {
                return;
            }
        }
    }

    /// Publishes with QoS 1 and waits until the broker has it.
    pub(crate) fn publish(&self, topic: &str, payload: &[u8], retain: bool) {
        let mut command = Command::new("mosquitto_pub");
        // It takes an empty message from an option only.
        let body = if payload.is_empty() { "-n" } else { "-s" };
        command.args(["-h", "127.0.0.1", "-q", "1", body, "-t", topic]);
        command.args(["-p", &self.port.to_string()]);
        if retain {
            command.arg("-r");
        }
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        if !payload.is_empty() {
            input.write_all(payload).unwrap();
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    }

    /// Kills the broker.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn blocking<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}
