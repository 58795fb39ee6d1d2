//! Records on stdout: columns for people, JSON or CSV for programs.

use serde_json::{Map, Value, json};

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    Table,
    /// JSON
    Json,
    /// Comma-separated values with a header
    Csv,
}

/// Many records. JSON holds them whole; the other two show `columns`.
pub(super) fn list(format: Format, columns: &[&str], rows: &[Value]) -> String {
    match format {
        Format::Json => format!("{:#}\n", Value::from(rows)),
        Format::Csv => csv(columns, rows),
        Format::Table => aligned(columns, rows),
    }
}

/// One record: its fields below each other.
pub(super) fn one(format: Format, record: &Value) -> String {
    match format {
        Format::Json => format!("{record:#}\n"),
        Format::Table | Format::Csv => {
            let rows: Vec<Value> = flat("", record)
                .into_iter()
                .map(|(key, value)| json!({ "key": key, "value": value }))
                .collect();
            if rows.is_empty() && format == Format::Table {
                return "done\n".to_owned();
            }
            list(format, &["key", "value"], &rows)
        }
    }
}

/// A value for a cell: on one line, without control characters, so that nothing that a device or
/// a person wrote can move a terminal's cursor.
pub(super) fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            // Scores and estimates in full length say nothing more.
            Some(float) if number.is_f64() => {
                let text = format!("{float:.4}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            Some(_) | None => number.to_string(),
        },
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields: Vec<String> =
                fields.map(|(key, value)| format!("{key}={}", plain(value))).collect();
            fields.join(" ")
        }
        Value::Bool(_) => value.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn csv(columns: &[&str], rows: &[Value]) -> String {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let cells = |row: &Value| columns.iter().map(|key| plain(&row[*key])).collect::<Vec<_>>();
    csv.write_record(columns)
        .and_then(|()| rows.iter().try_for_each(|row| csv.write_record(cells(row))))
        .expect("rows of one width go into memory");
    let bytes = csv.into_inner().expect("memory takes what is written");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Columns side by side, those that are empty in every row left out.
fn aligned(columns: &[&str], rows: &[Value]) -> String {
    if rows.is_empty() {
        return "none\n".to_owned();
    }
    let mut table: Vec<Vec<String>> = Vec::new();
    for column in columns {
        let cells: Vec<String> = rows.iter().map(|row| plain(&row[*column])).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            table.push(std::iter::once((*column).to_owned()).chain(cells).collect());
        }
    }
    let widths: Vec<usize> = table
        .iter()
        .map(|cells| cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in 0..=rows.len() {
        let line: Vec<String> = table
            .iter()
            .zip(&widths)
            .map(|(cells, width)| format!("{:<width$}", cells[row]))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The fields of a nested object by their path, those without a value left out.
fn flat(path: &str, value: &Value) -> Vec<(String, Value)> {
    let below = |fields: &Map<String, Value>| {
        fields
            .iter()
            .flat_map(|(key, value)| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flat(&path, value)
            })
            .collect()
    };
    match value {
        Value::Object(fields) => below(fields),
        Value::Null => Vec::new(),
        Value::Array(items) if items.is_empty() => Vec::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            vec![(path.to_owned(), value.clone())]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_leave_out_empty_columns_and_control_characters() {
        let rows = [json!({ "id": "a", "text": "x\u{1b}[2Jy", "none": null })];
        let table = aligned(&["id", "text", "none"], &rows);
        assert_eq!(table, "id  text\na   x [2Jy\n");
        assert_eq!(aligned(&["id"], &[]), "none\n");
    }

    #[test]
    fn an_answer_is_shown_field_by_field() {
        let answer = json!({ "decision": { "id": "x", "answer": null, "score": 0.123456 } });
        let fields = flat("", &answer);
        assert_eq!(fields[0].0, "decision.id");
        assert_eq!(fields.len(), 2);
        assert_eq!(plain(&fields[1].1), "0.1235");
    }
}
