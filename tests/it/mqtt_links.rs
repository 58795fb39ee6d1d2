//! How a broker is reached: TLS with certificates made for the test, passwords, versions, brokers
//! that fall silent, and a broker of another make.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wheeltap::config::{MqttSource, Secret};
use wheeltap::domain::reading::RawValue;
use wheeltap::port::Input;
use wheeltap::sources::SourceError;

use crate::support::broker::Mosquitto;
use crate::support::engine_end::EngineEnd;
use crate::support::setting::{json, mqtt, setting};
use crate::support::wait;

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Two authorities; a broker's certificate for 127.0.0.1 and a client's, by the first of them.
struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    fn make() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            wait::skip("openssl");
            return None;
        }
        let this = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::write(this.path("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        for authority in ["ca", "other"] {
            let (key, cert) = (format!("{authority}.key"), format!("{authority}.pem"));
            this.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} \
                 -out {cert} -days 2 -subj /CN={authority}"
            ));
        }
        for name in ["broker", "client"] {
            this.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key \
                 -out {name}.csr -subj /CN={name}"
            ));
            this.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                 -out {name}.pem -extfile san"
            ));
        }
        Some(this)
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).current_dir(self.directory.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Lines for a second listener that speaks TLS.
    fn listener(&self, port: u16, mutual: bool) -> String {
        let file = |name: &str| self.path(name).display().to_string();
        let mut text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\n",
            file("ca.pem"),
            file("broker.pem"),
            file("broker.key")
        );
        if mutual {
            text += "require_certificate true\n";
        }
        // Mosquitto gives its rights away before it reads keys.
        text + "user root\n"
    }

    fn source(&self, port: u16, authority: &str, client: bool) -> MqttSource {
        let mut source = mqtt("shop", port, vec![json("vib", "p/vib", "/rms")]);
        source.broker.tls = true;
        source.broker.ca = Some(self.bytes(authority));
        if client {
            let key = String::from_utf8(self.bytes("client.key")).unwrap();
            source.broker.identity = Some((self.bytes("client.pem"), Secret::new(key)));
        }
        source
    }
}

async fn hears(broker: &Mosquitto, end: &mut EngineEnd) {
    let health = end.tasks[0].health.values().next().unwrap().clone();
    let heard = tokio::time::timeout(Duration::from_secs(30), async {
        let mut asked = false;
        loop {
            match end.input().await {
                Input::Readings(batch) => {
                    assert_eq!(batch.readings[0].value, RawValue::Number(2.5));
                    batch.ack.unwrap().done();
                    // What an earlier connection had not acknowledged comes first, and again.
                    if asked {
                        return;
                    }
                }
                Input::Condition(report)
                    if report.condition == "source-silent" && !report.active && !asked =>
                {
                    asked = true;
                    broker.publish("p/vib", br#"{"rms":2.5}"#, false);
                }
                _ => {}
            }
        }
    });
    assert!(heard.await.is_ok(), "nothing was heard: {:?}", health.borrow());
}

/// Waits until the source says what is wrong.
async fn error(end: &EngineEnd, part: &str) {
    let mut health = end.tasks[0].health.values().next().unwrap().clone();
    let told = health
        .wait_for(|health| health.last_error.as_ref().is_some_and(|error| error.contains(part)));
    let told = tokio::time::timeout(Duration::from_secs(30), told).await;
    assert!(told.is_ok(), "not told: {part}");
}

#[tokio::test]
async fn tls_is_agreed_on_and_a_wrong_authority_is_refused() {
    let Some(certificates) = Certificates::make() else { return };
    let port = free_port();
    let Some(broker) = Mosquitto::start_with(&certificates.listener(port, false)).await else {
        return;
    };
    for v5 in [false, true] {
        let mut source = certificates.source(port, "ca.pem", false);
        source.broker.v5 = v5;
        let mut end = EngineEnd::start(&setting(vec![], vec![source]));
        hears(&broker, &mut end).await;
        end.stop().await;
    }
    let source = certificates.source(port, "other.pem", false);
    let end = EngineEnd::start(&setting(vec![], vec![source]));
    error(&end, "agreeing on TLS").await;
    // The certificate is for 127.0.0.1, not for this name of the same machine.
    let mut source = certificates.source(port, "ca.pem", false);
    source.broker.host = "localhost".to_owned();
    let end = EngineEnd::start(&setting(vec![], vec![source]));
    error(&end, "agreeing on TLS").await;
}

#[tokio::test]
async fn a_broker_that_asks_for_a_certificate_gets_ours() {
    let Some(certificates) = Certificates::make() else { return };
    let port = free_port();
    let Some(broker) = Mosquitto::start_with(&certificates.listener(port, true)).await else {
        return;
    };
    let source = certificates.source(port, "ca.pem", true);
    let mut end = EngineEnd::start(&setting(vec![], vec![source]));
    hears(&broker, &mut end).await;
    let source = certificates.source(port, "ca.pem", false);
    let end = EngineEnd::start(&setting(vec![], vec![source]));
    let mut health = end.tasks[0].health.values().next().unwrap().clone();
    let down = health.wait_for(|health| health.state == "down");
    tokio::time::timeout(Duration::from_secs(30), down).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_password_is_needed_where_one_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    let mut made = Command::new("mosquitto_passwd");
    made.args(["-b", "-c"]).arg(&file).args(["u", "p"]);
    if !made.output().is_ok_and(|output| output.status.success()) {
        return wait::skip("mosquitto_passwd");
    }
    let port = free_port();
    // The last word counts for all listeners.
    let settings = format!(
        "user root\nlistener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
        file.display()
    );
    let Some(_broker) = Mosquitto::start_with(&settings).await else { return };
    for v5 in [false, true] {
        let mut source = mqtt("shop", port, vec![json("vib", "p/vib", "/rms")]);
        source.broker.v5 = v5;
        source.broker.username = Some("u".to_owned());
        source.broker.password = Some(Secret::new("p".to_owned()));
        let mut end = EngineEnd::start(&setting(vec![], vec![source.clone()]));
        end.condition("source-silent", "shop", false).await;
        end.stop().await;
        source.broker.password = Some(Secret::new("wrong".to_owned()));
        let end = EngineEnd::start(&setting(vec![], vec![source]));
        error(&end, "refuses the connection").await;
    }
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_noticed_and_found_again() {
    let Some(broker) = Mosquitto::start().await else { return };
    let mut source = mqtt("shop", broker.port, vec![json("vib", "p/vib", "/rms")]);
    source.intake.keep_alive = Duration::from_secs(1);
    let mut end = EngineEnd::start(&setting(vec![], vec![source]));
    hears(&broker, &mut end).await;
    broker.freeze();
    error(&end, "silent for").await;
    broker.thaw();
    let mut health = end.tasks[0].health.values().next().unwrap().clone();
    let up = health.wait_for(|health| health.state == "up");
    tokio::time::timeout(Duration::from_secs(30), up).await.unwrap().unwrap();
    broker.publish("p/vib", br#"{"rms":4}"#, false);
    assert_eq!(end.batch().await.readings[0].value, RawValue::Number(4.0));
}

#[tokio::test]
async fn a_broker_that_never_answers_the_subscription_is_left() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let source = mqtt("shop", port, vec![json("vib", "p/vib", "/rms")]);
    let end = EngineEnd::start(&setting(vec![], vec![source]));
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    error(&end, "no answer to the subscription").await;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.ok();
    assert!(said.windows(5).any(|part| part == b"p/vib"), "it had asked");
}

#[tokio::test]
async fn a_peer_that_speaks_no_mqtt_is_left_and_the_session_begun_anew() {
    use tokio::io::AsyncWriteExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let source = mqtt("shop", port, vec![json("vib", "p/vib", "/rms")]);
    let mut end = EngineEnd::start(&setting(vec![], vec![source]));
    let talk = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // A CONNACK, and a packet of a type that there is not.
            stream.write_all(&[0x20, 2, 0, 0, 0x00, 0]).await.ok();
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
        }
    };
    tokio::select! {
        () = talk => {}
        _ = end.condition("messages-discarded", "shop", true) => {}
    }
}

#[tokio::test]
async fn keys_that_cannot_be_read_end_the_task_and_say_so() {
    let mut source = mqtt("shop", 1, vec![json("vib", "p/vib", "/rms")]);
    source.broker.tls = true;
    source.broker.ca = Some(b"no PEM".to_vec());
    let setting = setting(vec![], vec![source]);
    let (engine, _inputs) = wheeltap::port::EngineHandle::channel();
    let clock = wheeltap::runtime::clock::Clock::system();
    let tasks = wheeltap::sources::tasks(&setting, &engine, &clock, 1);
    let ended = (tasks[0].run)(tokio_util::sync::CancellationToken::new()).await;
    assert!(matches!(ended, Err(SourceError::Tls { .. })), "{ended:?}");
}

/// nats-server with its MQTT face; killed when dropped.
struct Nats {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Nats {
    async fn start() -> Option<Self> {
        let program = ["/usr/sbin/nats-server", "/usr/bin/nats-server"];
        let Some(program) = program.into_iter().find(|program| Path::new(program).exists()) else {
            wait::skip("nats-server");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let (port, own) = (free_port(), free_port());
        let path = directory.path().join("nats.conf");
        let text = format!(
            "server_name: test\nlisten: 127.0.0.1:{own}\njetstream {{ store_dir: \"{}\" }}\n\
             mqtt {{ listen: \"127.0.0.1:{port}\" }}\n",
            directory.path().display()
        );
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(program);
        let child = command.arg("-c").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().unwrap();
        let this = Self { child, port, _directory: directory };
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(this)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn nats_keeps_what_was_not_durable() {
    let Some(nats) = Nats::start().await else { return };
    let source = mqtt("shop", nats.port, vec![json("vib", "p/+/vib", "/rms")]);
    let mut end = EngineEnd::start(&setting(vec![], vec![source]));
    end.condition("source-silent", "shop", false).await;
    let mut publisher = crate::support::publisher::Publisher::connect(nats.port).await;
    publisher.publish("p/1/vib", r#"{"rms":1.5}"#, 1).await;
    publisher.drain().await;
    let batch = end.batch().await;
    assert_eq!(batch.readings[0].value, RawValue::Number(1.5));
    drop(batch);
    let again = end.batch().await;
    assert_eq!(again.readings[0].value, RawValue::Number(1.5));
    again.ack.unwrap().done();
}

#[tokio::test]
async fn what_paho_publishes_with_version_5_and_qos_2_comes_once_and_in_order() {
    const MESSAGES: usize = 50;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    if !root.join("target/venv/ready").exists() {
        return wait::skip("target/venv with tests/peers/requirements.txt (tests/run makes it)");
    }
    let Some(broker) = Mosquitto::start().await else { return };
    let mut source = mqtt("shop", broker.port, vec![json("vib", "p/vib", "/rms")]);
    source.broker.v5 = true;
    let mut end = EngineEnd::start(&setting(vec![], vec![source]));
    end.condition("source-silent", "shop", false).await;
    let mut paho = Command::new(python);
    paho.arg(root.join("tests/peers/paho_publisher.py"));
    paho.args([&broker.port.to_string(), "p/vib", &MESSAGES.to_string()]);
    let mut paho = paho.spawn().unwrap();
    let mut heard = Vec::new();
    while heard.len() < MESSAGES {
        let batch = end.batch().await;
        heard.extend(batch.readings.iter().map(|reading| reading.value));
        batch.ack.unwrap().done();
    }
    let expected: Vec<RawValue> =
        (0..MESSAGES).map(|number| RawValue::Number(number as f64)).collect();
    assert_eq!(heard, expected);
    assert!(paho.wait().unwrap().success());
}
