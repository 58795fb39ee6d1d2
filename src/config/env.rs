//! Overrides from the environment: `WHEELTAP__SECTION__KEY`, array tables by `name` or `id`
//! (`WHEELTAP__MODBUS__PLC1__URL`), put into the tree before it is read. Whether the key exists is
//! for the reader to say, who then names the variable.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mistake::{Place, Report};
use super::tree::{Branch, Entry, Node, Value, override_value};

/// What every override begins with.
pub(super) const PREFIX: &str = "WHEELTAP__";

/// The array tables that are addressed by a name, and the key that holds it.
const NAMED: [(&str, &str); 8] = [
    ("asset", "id"),
    ("technician", "id"),
    ("modbus", "name"),
    ("mqtt", "name"),
    ("replay", "name"),
    ("tag", "id"),
    ("rule", "name"),
    ("failure_mode", "id"),
];

/// The array tables that have no name, and so cannot be overridden.
const NAMELESS: [&str; 4] = ["notify", "decision", "window", "absence"];

/// Puts all overrides of the environment into the tree.
pub(super) fn apply(document: &mut Node, env: &BTreeMap<String, String>, report: &Report) {
    let Value::Table(root) = &mut document.value else { return };
    for (variable, text) in env.range(PREFIX.to_owned()..) {
        let Some(path) = variable.strip_prefix(PREFIX) else { break };
        let variable: Arc<str> = Arc::from(variable.as_str());
        let segments: Vec<&str> = path.split("__").collect();
        if let Err(what) = put(root, &segments, &variable, text) {
            report.wrong(&Place::Variable(variable), &path.to_lowercase().replace("__", "."), what);
        }
    }
}

fn put(branch: &mut Branch, path: &[&str], name: &Arc<str>, text: &str) -> Result<(), String> {
    let [first, rest @ ..] = path else { return Err("names no key".to_owned()) };
    if first.is_empty() {
        return Err("names no key".to_owned());
    }
    if first.chars().any(|c| c.is_lowercase() || c == '-') {
        return Err("must be upper case, with `_` for `-`".to_owned());
    }
    let key = first.to_lowercase();
    if let Some((_, id_key)) = NAMED.iter().find(|(table, _)| *table == key) {
        return put_named(branch, &key, id_key, rest, name, text);
    }
    if NAMELESS.contains(&key.as_str()) {
        return Err(format!("[[{key}]] has no name by which it could be overridden"));
    }
    let at = Place::Variable(Arc::clone(name));
    if rest.is_empty() {
        let node = override_value(name, text);
        match branch.get_mut(&key) {
            Some(entry) => *entry = Entry { key, key_at: at, node },
            None => branch.entries.push(Entry { key, key_at: at, node }),
        }
        return Ok(());
    }
    if branch.get(&key).is_none() {
        let node = Node { at: at.clone(), value: Value::Table(Branch::default()) };
        branch.entries.push(Entry { key: key.clone(), key_at: at, node });
    }
    match branch.get_mut(&key).map(|entry| &mut entry.node.value) {
        Some(Value::Table(inner)) => put(inner, rest, name, text),
        Some(_) | None => Err(format!("`{key}` is no table")),
    }
}

fn put_named(
    branch: &mut Branch,
    table: &str,
    id_key: &str,
    path: &[&str],
    name: &Arc<str>,
    text: &str,
) -> Result<(), String> {
    let Some(Value::Array(items)) = branch.get_mut(table).map(|entry| &mut entry.node.value) else {
        return Err(format!("there is no [[{table}]] in the file"));
    };
    // A name may itself hold `__`: the longest beginning of the path that is a name counts.
    for length in (1..path.len()).rev() {
        let wanted = path[..length].join("__");
        let mut meant = items.iter_mut().filter_map(|item| {
            let Value::Table(inner) = &mut item.value else { return None };
            is_called(inner, id_key, &wanted).then_some(inner)
        });
        let Some(inner) = meant.next() else { continue };
        if meant.next().is_some() {
            return Err(format!("more than one [[{table}]] is called {wanted}"));
        }
        return put(inner, &path[length..], name, text);
    }
    match path {
        [] | [_] => Err(format!("names no key of a [[{table}]]")),
        [wanted, ..] => Err(format!("no [[{table}]] has the {id_key} {wanted}")),
    }
}

fn is_called(branch: &Branch, id_key: &str, wanted: &str) -> bool {
    let Some(Value::String(name)) = branch.get(id_key).map(|entry| &entry.node.value) else {
        return false;
    };
    name.to_uppercase().replace('-', "_") == wanted
}
