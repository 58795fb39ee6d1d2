//! Small configurations, built by hand so that sources can be tested without files.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wheeltap::agents::Setting;
use wheeltap::config::{
    Approval, Broker, ByteOrder, Config, Detection, Gateway, Host, Http, LineOptions, Link,
    ModbusSource, ModbusTag, MqttSource, MqttTag, Payload, Point, PointType, Store, Table,
    TagConfig,
};
use wheeltap::domain::decision::Choice;
use wheeltap::domain::ids::{AssetId, SourceId, TagId, TagKey, TagPath};
use wheeltap::domain::severity::Criticality;
use wheeltap::domain::tag::Limits;

/// A configuration with these sources. Tags get their keys in the order of the sources.
pub(crate) fn setting(modbus: Vec<ModbusSource>, mqtt: Vec<MqttSource>) -> Setting {
    let config = Config {
        computed: Vec::new(),
        replay: Vec::new(),
        gateway: Gateway {
            site: "test".to_owned(),
            id: "gw".to_owned(),
            data_dir: "unused".into(),
            time_zone: jiff::tz::TimeZone::UTC,
            clock: Default::default(),
        },
        store: Store {
            max_disk: 1 << 29,
            commit_every: Duration::from_secs(5),
            write_budget: 1 << 30,
            journal_keep: Duration::from_secs(86_400),
        },
        detection: Detection { learn: Duration::from_secs(30) },
        approval: Approval {
            min_criticality: Criticality::new(4).unwrap(),
            deadline: Duration::from_secs(3600),
            default: Choice::Defer,
        },
        http: Http { listen: None, tokens: Vec::new(), metrics_open: false },
        upstream: None,
        assets: Vec::new(),
        technicians: Vec::new(),
        modbus,
        mqtt,
        notify: Vec::new(),
        decisions: Vec::new(),
        rules: Vec::new(),
        windows: Vec::new(),
        absences: Vec::new(),
        failure_modes: Vec::new(),
        models: Default::default(),
        hash: String::new(),
    };
    let keys = config.tags().zip(0..).map(|((_, tag, _), key)| (tag.path.clone(), TagKey(key)));
    let keys = keys.collect();
    let plant = Arc::new(config.plant(&keys));
    Setting { config: Arc::new(config), plant }
}

/// A tag `A/{name}` without scaling or limits.
pub(crate) fn tag(name: &str) -> TagConfig {
    TagConfig {
        path: TagPath { asset: AssetId::new("A").unwrap(), tag: TagId::new(name).unwrap() },
        unit: String::new(),
        quantity: String::new(),
        scale: 1.0,
        offset: 0.0,
        range: None,
        invalid: Vec::new(),
        limits: Limits::default(),
        discrete: false,
        handling: wheeltap::domain::tag::Handling::default(),
    }
}

/// A Modbus source that is polled every 20 ms, with a deadline of 100 ms and breaker pauses of at
/// most 100 ms: short, so that tests are.
pub(crate) fn modbus(name: &str, server: SocketAddr, tags: Vec<ModbusTag>) -> ModbusSource {
    ModbusSource {
        name: SourceId::new(name).unwrap(),
        link: Link::Tcp(Host { name: server.ip().to_string(), port: server.port() }),
        line: LineOptions::default(),
        poll: POLL,
        timeout: Duration::from_millis(100),
        breaker_max: Duration::from_millis(100),
        max_registers: 125,
        polling: wheeltap::config::Polling::default(),
        tags,
    }
}

const POLL: Duration = Duration::from_millis(20);

/// An unsigned 16-bit holding register, named `{unit}-{address}`.
pub(crate) fn register(unit: u8, address: u16) -> ModbusTag {
    point(&format!("{unit}-{address}"), unit, Table::Holding, address, PointType::U16)
}

/// Any point.
pub(crate) fn point(
    name: &str,
    unit: u8,
    table: Table,
    address: u16,
    kind: PointType,
) -> ModbusTag {
    let point = Point { unit, table, address, kind, order: ByteOrder::Abcd };
    ModbusTag { tag: tag(name), point, poll: POLL }
}

/// A source at a broker on this machine.
pub(crate) fn mqtt(name: &str, port: u16, tags: Vec<MqttTag>) -> MqttSource {
    let broker = Broker {
        host: "127.0.0.1".to_owned(),
        port,
        tls: false,
        websocket: false,
        v5: false,
        client_id: "wheeltap-test".to_owned(),
        username: None,
        password: None,
        ca: None,
        identity: None,
    };
    let intake = wheeltap::config::Intake::default();
    MqttSource { name: SourceId::new(name).unwrap(), broker, tags, intake }
}

/// A tag `A/{name}` in JSON messages on `topic`.
pub(crate) fn json(name: &str, topic: &str, pointer: &str) -> MqttTag {
    let payload = Payload::Json { pointer: pointer.to_owned(), time_pointer: None };
    payload_tag(name, topic, payload)
}

/// A tag `A/{name}` in messages of this form on `topic`.
pub(crate) fn payload_tag(name: &str, topic: &str, payload: Payload) -> MqttTag {
    let topic = topic.to_owned();
    MqttTag { tag: tag(name), topic, payload, expect_every: None, device_time: false }
}
