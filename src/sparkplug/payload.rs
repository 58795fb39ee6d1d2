//! The messages of Sparkplug B (`sparkplug_b.proto` of Eclipse Tahu, schema 3.0), written out by
//! hand so that the build needs no protocol compiler. All fields, for whoever composes payloads;
//! what strangers send is read with [`super::incoming`], which skips what can be nested.

/// Types of metrics and properties, as numbered by the specification (§6.4.16).
pub mod datatype {
    /// Signed, 8 bits.
    pub const INT8: u32 = 1;
    /// Signed, 16 bits.
    pub const INT16: u32 = 2;
    /// Signed, 32 bits.
    pub const INT32: u32 = 3;
    /// Signed, 64 bits.
    pub const INT64: u32 = 4;
    /// Unsigned, 8 bits.
    pub const UINT8: u32 = 5;
    /// Unsigned, 16 bits.
    pub const UINT16: u32 = 6;
    /// Unsigned, 32 bits.
    pub const UINT32: u32 = 7;
    /// Unsigned, 64 bits.
    pub const UINT64: u32 = 8;
    /// IEEE 754 single precision.
    pub const FLOAT: u32 = 9;
    /// IEEE 754 double precision.
    pub const DOUBLE: u32 = 10;
    /// True or false.
    pub const BOOLEAN: u32 = 11;
    /// UTF-8 text.
    pub const STRING: u32 = 12;
    /// Milliseconds since 1970 in UTC.
    pub const DATE_TIME: u32 = 13;
    /// UTF-8 text.
    pub const TEXT: u32 = 14;
    /// A UUID as text.
    pub const UUID: u32 = 15;
    /// A table.
    pub const DATA_SET: u32 = 16;
    /// Bytes.
    pub const BYTES: u32 = 17;
    /// A file.
    pub const FILE: u32 = 18;
    /// A structure.
    pub const TEMPLATE: u32 = 19;
}

/// One message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Payload {
    /// When it was sent, milliseconds since 1970 in UTC.
    #[prost(uint64, optional, tag = "1")]
    pub timestamp: Option<u64>,
    /// What it says.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    /// Running number of the node, 0 to 255.
    #[prost(uint64, optional, tag = "3")]
    pub seq: Option<u64>,
    /// Schema of the body.
    #[prost(string, optional, tag = "4")]
    pub uuid: Option<String>,
    /// Anything.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub body: Option<Vec<u8>>,
}

/// One named value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metric {
    /// Name, in births and without aliases.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Number that stands for the name after the birth.
    #[prost(uint64, optional, tag = "2")]
    pub alias: Option<u64>,
    /// When it was measured, milliseconds since 1970 in UTC.
    #[prost(uint64, optional, tag = "3")]
    pub timestamp: Option<u64>,
    /// One of [`datatype`].
    #[prost(uint32, optional, tag = "4")]
    pub datatype: Option<u32>,
    /// Sent late: not the present value.
    #[prost(bool, optional, tag = "5")]
    pub is_historical: Option<bool>,
    /// Not to be kept.
    #[prost(bool, optional, tag = "6")]
    pub is_transient: Option<bool>,
    /// There is no value.
    #[prost(bool, optional, tag = "7")]
    pub is_null: Option<bool>,
    /// About the value.
    #[prost(message, optional, tag = "8")]
    pub metadata: Option<MetaData>,
    /// About the value, by name: `Quality`, unit, ranges.
    #[prost(message, optional, tag = "9")]
    pub properties: Option<PropertySet>,
    /// The value.
    #[prost(oneof = "metric::Value", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub value: Option<metric::Value>,
}

/// Parts of a [`Metric`].
pub mod metric {
    /// The value of a metric. Signed integers travel as two's complement.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// Up to 32 bits.
        #[prost(uint32, tag = "10")]
        Int(u32),
        /// 64 bits, and times.
        #[prost(uint64, tag = "11")]
        Long(u64),
        /// Single precision.
        #[prost(float, tag = "12")]
        Float(f32),
        /// Double precision.
        #[prost(double, tag = "13")]
        Double(f64),
        /// True or false.
        #[prost(bool, tag = "14")]
        Boolean(bool),
        /// Text.
        #[prost(string, tag = "15")]
        String(String),
        /// Bytes, and arrays.
        #[prost(bytes, tag = "16")]
        Bytes(Vec<u8>),
        /// A table.
        #[prost(message, tag = "17")]
        DataSet(super::DataSet),
        /// A structure.
        #[prost(message, tag = "18")]
        Template(super::Template),
    }
}

/// About a value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetaData {
    /// One of several parts.
    #[prost(bool, optional, tag = "1")]
    pub is_multi_part: Option<bool>,
    /// Media type.
    #[prost(string, optional, tag = "2")]
    pub content_type: Option<String>,
    /// Bytes.
    #[prost(uint64, optional, tag = "3")]
    pub size: Option<u64>,
    /// Number of the part.
    #[prost(uint64, optional, tag = "4")]
    pub seq: Option<u64>,
    /// Name of the file.
    #[prost(string, optional, tag = "5")]
    pub file_name: Option<String>,
    /// Type of the file.
    #[prost(string, optional, tag = "6")]
    pub file_type: Option<String>,
    /// MD5 of the whole.
    #[prost(string, optional, tag = "7")]
    pub md5: Option<String>,
    /// In words.
    #[prost(string, optional, tag = "8")]
    pub description: Option<String>,
}

/// Properties by name: as many keys as values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PropertySet {
    /// Names.
    #[prost(string, repeated, tag = "1")]
    pub keys: Vec<String>,
    /// Values in the order of the names.
    #[prost(message, repeated, tag = "2")]
    pub values: Vec<PropertyValue>,
}

/// Several sets of properties.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PropertySetList {
    /// The sets.
    #[prost(message, repeated, tag = "1")]
    pub propertyset: Vec<PropertySet>,
}

/// One property.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PropertyValue {
    /// One of [`datatype`], or 20 for a set, 21 for a list of sets.
    #[prost(uint32, optional, tag = "1")]
    pub r#type: Option<u32>,
    /// There is no value.
    #[prost(bool, optional, tag = "2")]
    pub is_null: Option<bool>,
    /// The value.
    #[prost(oneof = "property::Value", tags = "3, 4, 5, 6, 7, 8, 9, 10")]
    pub value: Option<property::Value>,
}

/// Parts of a [`PropertyValue`].
pub mod property {
    /// The value of a property.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// Up to 32 bits.
        #[prost(uint32, tag = "3")]
        Int(u32),
        /// 64 bits.
        #[prost(uint64, tag = "4")]
        Long(u64),
        /// Single precision.
        #[prost(float, tag = "5")]
        Float(f32),
        /// Double precision.
        #[prost(double, tag = "6")]
        Double(f64),
        /// True or false.
        #[prost(bool, tag = "7")]
        Boolean(bool),
        /// Text.
        #[prost(string, tag = "8")]
        String(String),
        /// A set of properties.
        #[prost(message, tag = "9")]
        Set(super::PropertySet),
        /// Several sets.
        #[prost(message, tag = "10")]
        Sets(super::PropertySetList),
    }
}

/// A table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DataSet {
    /// Columns.
    #[prost(uint64, optional, tag = "1")]
    pub num_of_columns: Option<u64>,
    /// Their names.
    #[prost(string, repeated, tag = "2")]
    pub columns: Vec<String>,
    /// Their types, of [`datatype`].
    #[prost(uint32, repeated, packed = "false", tag = "3")]
    pub types: Vec<u32>,
    /// The rows.
    #[prost(message, repeated, tag = "4")]
    pub rows: Vec<Row>,
}

/// One row of a [`DataSet`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Row {
    /// A cell a column.
    #[prost(message, repeated, tag = "1")]
    pub elements: Vec<Cell>,
}

/// One cell of a [`Row`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Cell {
    /// The value.
    #[prost(oneof = "cell::Value", tags = "1, 2, 3, 4, 5, 6")]
    pub value: Option<cell::Value>,
}

/// Parts of a [`Cell`].
pub mod cell {
    /// The value of a cell.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// Up to 32 bits.
        #[prost(uint32, tag = "1")]
        Int(u32),
        /// 64 bits.
        #[prost(uint64, tag = "2")]
        Long(u64),
        /// Single precision.
        #[prost(float, tag = "3")]
        Float(f32),
        /// Double precision.
        #[prost(double, tag = "4")]
        Double(f64),
        /// True or false.
        #[prost(bool, tag = "5")]
        Boolean(bool),
        /// Text.
        #[prost(string, tag = "6")]
        String(String),
    }
}

/// A structure: its definition, or an instance.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Template {
    /// Version of the definition.
    #[prost(string, optional, tag = "1")]
    pub version: Option<String>,
    /// Its members.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    /// Its parameters.
    #[prost(message, repeated, tag = "3")]
    pub parameters: Vec<Parameter>,
    /// Name of the definition, in instances.
    #[prost(string, optional, tag = "4")]
    pub template_ref: Option<String>,
    /// Whether it is a definition.
    #[prost(bool, optional, tag = "5")]
    pub is_definition: Option<bool>,
}

/// A parameter of a [`Template`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Parameter {
    /// Its name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// One of [`datatype`].
    #[prost(uint32, optional, tag = "2")]
    pub r#type: Option<u32>,
    /// The value.
    #[prost(oneof = "parameter::Value", tags = "3, 4, 5, 6, 7, 8")]
    pub value: Option<parameter::Value>,
}

/// Parts of a [`Parameter`].
pub mod parameter {
    /// The value of a parameter.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// Up to 32 bits.
        #[prost(uint32, tag = "3")]
        Int(u32),
        /// 64 bits.
        #[prost(uint64, tag = "4")]
        Long(u64),
        /// Single precision.
        #[prost(float, tag = "5")]
        Float(f32),
        /// Double precision.
        #[prost(double, tag = "6")]
        Double(f64),
        /// True or false.
        #[prost(bool, tag = "7")]
        Boolean(bool),
        /// Text.
        #[prost(string, tag = "8")]
        String(String),
    }
}

impl Payload {
    /// The request to a node to send its births again (`Node Control/Rebirth`), sent at this time
    /// (milliseconds since 1970 in UTC).
    #[must_use]
    pub fn rebirth(timestamp: u64) -> Self {
        let metric = Metric {
            name: Some("Node Control/Rebirth".to_owned()),
            timestamp: Some(timestamp),
            datatype: Some(datatype::BOOLEAN),
            value: Some(metric::Value::Boolean(true)),
            ..Metric::default()
        };
        Self { timestamp: Some(timestamp), metrics: vec![metric], ..Self::default() }
    }
}
