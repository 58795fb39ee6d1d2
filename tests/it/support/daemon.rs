//! The daemon as a process: started as systemd would, asked over HTTP, killed and stopped.

#![allow(clippy::disallowed_methods, reason = "processes are watched on the wall clock")]

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::wait;

/// The program under test.
pub(crate) const WHEELTAP: &str = env!("CARGO_BIN_EXE_wheeltap");
/// Ports that are tried when somebody takes the chosen one before the daemon does.
const PORTS_MAX: usize = 10;

/// A directory with a configuration and a data directory.
#[derive(Debug)]
pub(crate) struct Home {
    directory: tempfile::TempDir,
    data: PathBuf,
    max_disk: &'static str,
    rest: String,
    port: u16,
    /// What the daemon's own view of the file system is prepared with: flags of `unshare`, command.
    mount: Option<(&'static str, String)>,
    /// What else its daemons find in their environment.
    environment: Vec<(String, String)>,
}

impl Home {
    /// A home whose configuration is `rest` after the tables `gateway`, `store` and `http`.
    pub(crate) fn new(rest: impl Into<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let home = Self {
            directory,
            data,
            max_disk: "64MiB",
            rest: rest.into(),
            port: free_port(),
            mount: None,
            environment: Vec::new(),
        };
        home.write();
        home
    }

    /// The same with its data elsewhere, and so much room for them.
    pub(crate) fn with_data(mut self, data: &Path, max_disk: &'static str) -> Self {
        self.data = data.to_owned();
        self.max_disk = max_disk;
        self.write();
        self
    }

    /// The same, its daemons in a mount namespace of their own that `mount` prepares; `None` when
    /// that is not possible here.
    pub(crate) fn inside(mut self, mount: &str) -> Option<Self> {
        // Without privilege it takes a user namespace too, where the system gives one.
        let possible = |flags: &&str| {
            let tried = Command::new("unshare").args([flags, "sh", "-c", mount]).output();
            tried.is_ok_and(|tried| tried.status.success())
        };
        let flags = ["-m", "-Urm"].into_iter().find(possible)?;
        self.mount = Some((flags, mount.to_owned()));
        Some(self)
    }

    /// The same, its daemons with more in their environment.
    pub(crate) fn with_environment(mut self, environment: Vec<(String, String)>) -> Self {
        self.environment = environment;
        self
    }

    /// Other room for the data.
    pub(crate) fn set_max_disk(&mut self, max_disk: &'static str) {
        self.max_disk = max_disk;
        self.write();
    }

    fn write(&self) {
        let text = format!(
            "[gateway]\nsite = \"test\"\nid = \"gw\"\ndata_dir = \"{}\"\n\
             [store]\nmax_disk = \"{}\"\ncommit_every = \"500ms\"\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n{}",
            self.data.display(),
            self.max_disk,
            self.port,
            self.rest
        );
        fs::write(self.config(), text).unwrap();
    }

    /// Other contents after the first tables.
    pub(crate) fn rewrite(&mut self, rest: &str) {
        rest.clone_into(&mut self.rest);
        self.write();
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("wheeltap.toml")
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// What the daemons of this home wrote to stderr.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default()
    }

    /// Runs a command of the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(WHEELTAP).args(arguments).output().unwrap()
    }

    /// Starts the daemon and waits for `READY=1`.
    pub(crate) fn start(&mut self) -> Daemon {
        for _ in 0..PORTS_MAX {
            match self.try_start() {
                Ok(daemon) => return daemon,
                Err(code) if code == Some(1) && self.log().contains("listening on http") => {
                    self.port = free_port();
                    self.write();
                }
                Err(code) => panic!("the daemon ended with {code:?}:\n{}", self.log()),
            }
        }
        panic!("{PORTS_MAX} free ports in a row were taken by others");
    }

    /// Starts the daemon and waits for `READY=1`, or for its end with a code.
    pub(crate) fn try_start(&self) -> Result<Daemon, Option<i32>> {
        let mut daemon = self.spawn();
        loop {
            if daemon.heard_ready() {
                return Ok(daemon);
            }
            if let Some(status) = daemon.child.try_wait().unwrap() {
                return Err(status.code());
            }
            assert!(daemon.began.elapsed() < wait::PATIENCE, "not ready:\n{}", self.log());
        }
    }

    /// Starts the daemon and waits for nothing.
    pub(crate) fn spawn(&self) -> Daemon {
        let socket = self.directory.path().join("notify");
        fs::remove_file(&socket).ok();
        let notices = UnixDatagram::bind(&socket).unwrap();
        notices.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let log_path = self.directory.path().join("daemon.log");
        let log = fs::OpenOptions::new().append(true).create(true).open(&log_path).unwrap();
        let mut command = match &self.mount {
            None => Command::new(WHEELTAP),
            Some((flags, mount)) => {
                // `exec` all the way, so that the child is the daemon itself.
                let mut command = Command::new("unshare");
                let script = format!("{mount} && exec \"$0\" \"$@\"");
                command.args([flags, "sh", "-c", &script, WHEELTAP]);
                command
            }
        };
        let child = command
            .args(["run", "--log-format", "text", "--config"])
            .arg(self.config())
            .env("NOTIFY_SOCKET", &socket)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(20)))
            .http_status_as_error(false)
            .build();
        let url = format!("http://127.0.0.1:{}", self.port);
        let http = Http { agent: agent.into(), url };
        Daemon { child, notices, said: Vec::new(), began: Instant::now(), http, log_path }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The daemon's HTTP API.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    agent: ureq::Agent,
    url: String,
}

impl Http {
    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Status and JSON of a path.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, Value), ureq::Error> {
        let mut reply = self.agent.get(format!("{}{path}", self.url)).call()?;
        let text = reply.body_mut().read_to_string()?;
        Ok((reply.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// Sends JSON; status and JSON of the answer.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<(u16, Value), ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.url));
        let mut reply =
            request.header("Content-Type", "application/json").send(body.to_string())?;
        let text = reply.body_mut().read_to_string()?;
        Ok((reply.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// All items of a list, page by page.
    pub(crate) fn list(&self, path: &str) -> Vec<Value> {
        let glue = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let (status, page) = self.get(&format!("{path}{glue}limit=1000{next}")).unwrap();
            assert_eq!(status, 200, "{path}: {page}");
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(cursor) = page["next"].as_str() else { return items };
            next = format!("&cursor={cursor}");
        }
    }

    /// Waits for an item in a list.
    pub(crate) fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait::until(path, || self.list(path).into_iter().find(|item| wanted(item)))
    }

    /// Waits for a reading of a tag that is as wanted.
    pub(crate) fn reading(&self, asset: &str, tag: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(&format!("/api/v1/readings?asset={asset}&tag={tag}"), wanted)
    }
}

/// A started daemon; it is killed when dropped, and its log printed when the test has failed.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    notices: UnixDatagram,
    said: Vec<String>,
    began: Instant,
    /// Its API.
    pub(crate) http: Http,
    log_path: PathBuf,
}

impl Daemon {
    /// Looks at what was told to the service manager, for some milliseconds.
    fn heard_ready(&mut self) -> bool {
        let mut message = [0_u8; 2048];
        while let Ok(length) = self.notices.recv(&mut message) {
            self.said.push(String::from_utf8_lossy(&message[..length]).into_owned());
        }
        self.said.iter().any(|said| said.lines().any(|line| line == "READY=1"))
    }

    /// Waits until a line has been told to the service manager since it was last asked.
    pub(crate) fn wait_told(&mut self, part: &str) {
        self.said.clear();
        wait::until(part, || {
            self.heard_ready();
            self.said.iter().any(|said| said.contains(part)).then_some(())
        });
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and returns its exit code and how long it took.
    pub(crate) fn stop(mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        self.signal(Signal::TERM);
        (self.ended(), began.elapsed())
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        wait::until("the daemon's end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log_path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(60);
            eprintln!("--- the daemon's log\n{}\n---", lines[from..].join("\n"));
        }
    }
}

/// One Modbus source `plc1` with 32-bit floats of asset `P-101`: name, address, further keys.
pub(crate) fn modbus(address: &str, tags: &[(&str, u16, &str)]) -> String {
    let mut text = format!(
        "[[modbus]]\nname = \"plc1\"\nurl = \"tcp://{address}\"\nunit = 1\npoll = \"100ms\"\n\
         timeout = \"100ms\"\nbreaker_max = \"1s\"\n"
    );
    for (name, address, keys) in tags {
        text += &format!(
            "[[modbus.tag]]\nid = \"{name}\"\nasset = \"P-101\"\npoint = \"holding:{address}\"\n\
             type = \"f32\"\n{keys}\n"
        );
    }
    text
}

/// The asset `P-101`.
pub(crate) const ASSET: &str = "[[asset]]\nid = \"P-101\"\nclass = \"pump\"\ncriticality = 4\n";

/// The way upstream.
pub(crate) fn upstream(port: u16) -> String {
    format!("[upstream]\nurl = \"mqtt://127.0.0.1:{port}\"\n")
}

/// Text of an error, for messages of tests.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Fills a file with bytes until the disk is full.
pub(crate) fn fill(path: &Path) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::create(path)?;
    for size in [1 << 16, 1 << 12, 1 << 9] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    Ok(())
}
