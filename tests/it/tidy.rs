//! The shape of the code, read from its sources: layers keep apart, files stay readable, and what
//! an unattended daemon must not do is done nowhere. Tests inside `src` are exempt.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its sources has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code a file may have before its tests; blank lines and comments are free, because
/// documentation is asked for.
const CODE_LINES_MAX: usize = 600;

/// Files that are longer for now, and how long they may be: they may shrink, never grow.
const LONGER: &[(&str, usize)] =
    &[("src/agents/orchestration/mod.rs", 680), ("src/agents/validation/mod.rs", 650)];

/// Which modules of the crate each one may use. Whoever is not named may use all: `runtime` and
/// `cli` wire things together.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("analytics", &["domain"]),
    ("config", &["domain"]),
    ("agents", &["analytics", "config", "domain"]),
    ("port", &["agents", "config", "domain"]),
    // The leaves of the shells: clocks, pauses, certificates.
    ("clock", &["domain"]),
    ("backoff", &[]),
    ("tls", &["config"]),
    ("sim", &["backoff", "clock", "config", "domain"]),
    ("notify", &["config", "domain"]),
    ("sources", &["agents", "backoff", "clock", "config", "domain", "port", "tls"]),
    ("store", &["agents", "clock", "config", "domain", "port"]),
    // The journal and the ring are the queue: the uplink reads them itself.
    ("uplink", &["agents", "backoff", "clock", "config", "domain", "port", "store", "tls"]),
    // Lists are read from the store, the stream has the uplink's form.
    ("http", &["agents", "analytics", "clock", "config", "domain", "port", "store", "uplink"]),
];

/// The layers that decide and compute: a function of what they are given, so that a year can be
/// simulated in seconds.
const PURE: &[&str] = &["domain", "analytics", "agents"];

/// What reaches outside of the program, or asks it for the time.
const OUTSIDE: &[&str] = &[
    "tokio::net",
    "tokio::fs",
    "tokio::io",
    "tokio::time",
    "tokio::task",
    "tokio::spawn",
    "tokio::process",
    "tokio::runtime",
    "tokio::signal",
    "tokio::select",
    "rusqlite",
    "rumqttc",
    "rumqttd",
    "tokio_modbus",
    "axum",
    "hyper",
    "ureq",
    "rustls",
    "rustix",
    "signal_hook",
    "sd_notify",
    "std::net",
    "std::fs",
    "std::io",
    "std::env",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
];

/// What is done nowhere outside tests.
const NOWHERE: &[(&str, &str)] = &[
    (".unwrap()", "handle it, or expect an invariant"),
    (".unwrap_err()", "handle it"),
    ("todo!(", "do it"),
    ("unimplemented!(", "do it"),
    ("dbg!(", "log it"),
    ("unbounded_channel", "every queue has a bound"),
    ("mpsc::channel()", "every queue has a bound"),
    ("mpsc::unbounded", "every queue has a bound"),
];

/// One source file without comments, strings and tests.
struct Source {
    /// From the root of the repository, e.g. `src/agents/mod.rs`.
    path: String,
    /// First level under `src`, e.g. `agents`.
    module: String,
    /// Its lines; what was blanked out is spaces.
    lines: Vec<String>,
}

impl Source {
    fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// All sources outside tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    files.sort();
    let texts: BTreeMap<PathBuf, String> =
        files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect();
    let tests: BTreeSet<PathBuf> =
        texts.iter().flat_map(|(path, text)| test_files(path, text)).collect();
    let is_test = |path: &Path| path.ancestors().any(|part| tests.contains(part));
    let mut sources = Vec::new();
    for (path, text) in texts.iter().filter(|(path, _)| !is_test(path)) {
        let relative = path.strip_prefix(root).unwrap();
        let module = relative.iter().nth(1).unwrap().to_str().unwrap().trim_end_matches(".rs");
        sources.push(Source {
            path: relative.to_str().unwrap().to_owned(),
            module: module.to_owned(),
            lines: without_tests(&code_only(text)).lines().map(str::to_owned).collect(),
        });
    }
    assert!(sources.len() > 20, "only {} sources were found", sources.len());
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The files (and folders) that `#[cfg(test)] mod …;` in this one names.
fn test_files(path: &Path, text: &str) -> Vec<PathBuf> {
    let folder = path.parent().unwrap();
    // A module's own modules lie in the folder of its name, unless it is that folder's `mod.rs`.
    let name = path.file_stem().unwrap().to_str().unwrap();
    let inner = match name {
        "mod" | "lib" | "main" => folder.to_owned(),
        other => folder.join(other),
    };
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            continue;
        }
        let mut named = None;
        let mut item = "";
        for line in lines.by_ref() {
            let line = line.trim();
            if let Some(quoted) = line.strip_prefix("#[path = \"") {
                named = quoted.split('"').next();
            } else if !line.starts_with("#[") {
                item = line;
                break;
            }
        }
        let module = item.strip_suffix(';').and_then(|item| item.split("mod ").nth(1));
        match (module, named) {
            (Some(_), Some(file)) => found.push(folder.join(file)),
            (Some(module), None) => {
                found.push(inner.join(format!("{module}.rs")));
                found.push(inner.join(module));
            }
            (None, _) => {}
        }
    }
    found
}

/// The same text with everything in comments, strings and character literals made blank.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let bytes: Vec<char> = text.chars().collect();
    let at = |index: usize| bytes.get(index).copied().unwrap_or('\n');
    let blank = |code: &mut String, from: usize, to: usize| {
        code.extend((from..to).map(|index| if at(index) == '\n' { '\n' } else { ' ' }));
    };
    let mut index = 0;
    while index < bytes.len() {
        let end = match (at(index), at(index + 1)) {
            ('/', '/') => (index..).find(|i| at(*i) == '\n').unwrap(),
            ('/', '*') => {
                let rest = (index + 2..bytes.len()).find(|i| at(*i) == '*' && at(i + 1) == '/');
                rest.map_or(bytes.len(), |i| i + 2)
            }
            ('r', '"' | '#') if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                let hashes = (index + 1..).take_while(|i| at(*i) == '#').count();
                if at(index + 1 + hashes) == '"' {
                    let closes =
                        |i: &usize| at(*i) == '"' && (1..=hashes).all(|hash| at(i + hash) == '#');
                    let close = (index + 2 + hashes..bytes.len()).find(closes);
                    close.map_or(bytes.len(), |i| i + 1 + hashes)
                } else {
                    index
                }
            }
            ('"', _) => {
                let mut i = index + 1;
                while i < bytes.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i + 1
            }
            // A character, not a lifetime.
            ('\'', '\\') => (index + 3..).find(|i| at(*i) == '\'').map_or(index, |i| i + 1),
            ('\'', _) if at(index + 2) == '\'' => index + 3,
            _ => index,
        };
        if end > index {
            blank(&mut code, index, end.min(bytes.len()));
            index = end;
        } else {
            code.push(at(index));
            index += 1;
        }
    }
    code
}

/// The same code with every item under `#[cfg(test)]` made blank.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut left = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        left.push_str(&rest[..start]);
        let item = &rest[start..];
        let mut depth = 0_usize;
        let mut end = item.len();
        for (index, c) in item.char_indices().skip(MARK.len()) {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => {
                    depth = depth.saturating_sub(1);
                    if c == '}' && depth == 0 {
                        end = index + 1;
                        break;
                    }
                }
                ';' | ',' if depth == 0 => {
                    end = index + 1;
                    break;
                }
                _ => {}
            }
        }
        left.extend(item[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &item[end..];
    }
    left.push_str(rest);
    left
}

fn starts_word(line: &str, at: usize) -> bool {
    !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
}

/// Where each of `words` stands as a path of its own, e.g. `src/a.rs:7: ureq`.
fn find_words(source: &Source, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(&source.lines) {
        for word in words {
            let hit = line.match_indices(word).any(|(at, _)| {
                let after = line[at + word.len()..].chars().next();
                let ends = !after.is_some_and(|c| c.is_alphanumeric() || c == '_');
                starts_word(line, at) && ends
            });
            if hit {
                found.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    found
}

/// The first levels that a source names after `crate::`, also in `use crate::{a, b::c};`.
fn used_modules(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        if !starts_word(text, at) {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => used.extend(first_level(&std::mem::take(&mut name))),
                    c if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            used.extend(first_level(&name));
        } else {
            used.extend(first_level(rest));
        }
    }
    used
}

fn first_level(path: &str) -> Option<String> {
    let path = path.trim_start();
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(path.len());
    let name = &path[..end];
    // Modules are lower case; a re-exported type at the root would be no layer.
    name.starts_with(|c: char| c.is_lowercase()).then(|| name.to_owned())
}

fn all_clear(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn imports_point_one_way() {
    let rules: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut complaints = Vec::new();
    for source in sources() {
        let Some(allowed) = rules.get(source.module.as_str()) else { continue };
        for used in used_modules(&source.text()) {
            if used != source.module && !allowed.contains(&used.as_str()) {
                complaints.push(format!("{}: {} uses {used}", source.path, source.module));
            }
        }
    }
    all_clear(&complaints);
}

#[test]
fn every_module_has_its_place_among_the_layers() {
    let known: BTreeSet<&str> = MAY_USE.iter().map(|(module, _)| *module).collect();
    let top = ["runtime", "cli", "lib", "main"];
    let there: BTreeSet<String> = sources().into_iter().map(|source| source.module).collect();
    let strangers: Vec<String> = there
        .into_iter()
        .filter(|module| !known.contains(module.as_str()) && !top.contains(&module.as_str()))
        .map(|module| format!("src/{module} is not in MAY_USE: say what it may use"))
        .collect();
    all_clear(&strangers);
    // The table itself allows no circle: each one uses only what uses less.
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    let mut left: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    while !left.is_empty() {
        let ready: Vec<&str> = left
            .iter()
            .filter(|(_, uses)| uses.iter().all(|used| settled.contains(used)))
            .map(|(module, _)| *module)
            .collect();
        assert!(!ready.is_empty(), "circle among {left:?}");
        for module in ready {
            left.remove(module);
            settled.insert(module);
        }
    }
}

#[test]
fn pure_layers_reach_nothing_outside() {
    let complaints: Vec<String> = sources()
        .iter()
        .filter(|source| PURE.contains(&source.module.as_str()))
        .flat_map(|source| find_words(source, OUTSIDE))
        .collect();
    all_clear(&complaints);
}

#[test]
fn what_an_unattended_daemon_must_not_do_is_done_nowhere() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(&source.lines) {
            for (what, instead) in NOWHERE.iter().filter(|(what, _)| line.contains(what)) {
                complaints.push(format!("{}:{number}: {what}: {instead}", source.path));
            }
        }
    }
    all_clear(&complaints);
}

#[test]
fn e05_local_time_is_asked_for_nowhere() {
    // Records are UTC; shifts and reports use the zone of the configuration, never the machine's.
    let words = [
        "TimeZone::system",
        "TimeZone::try_system",
        "Zoned::now",
        "civil::now",
        "localtime",
        "localtime_r",
        "chrono::Local",
        "Local::now",
        "OffsetDateTime::now_local",
    ];
    let all = sources();
    all_clear(&all.iter().flat_map(|source| find_words(source, &words)).collect::<Vec<_>>());
}

#[test]
fn files_stay_readable() {
    let mut complaints = Vec::new();
    for source in sources() {
        let lines = source.lines.iter().filter(|line| !line.trim().is_empty()).count();
        let longer = LONGER.iter().find(|(path, _)| *path == source.path);
        let most = longer.map_or(CODE_LINES_MAX, |(_, most)| *most);
        if lines > most {
            let path = &source.path;
            complaints.push(format!("{path} has {lines} lines of code, at most {most}: split it"));
        }
    }
    all_clear(&complaints);
}

#[test]
fn the_reader_of_sources_knows_code_from_words() {
    let text = r##"
        use crate::{agents::Stage, domain::{alarm::Alarm, ids}, Config};
        fn f<'a>(c: &'a str) -> char { crate::port::g(); "crate::store"; '"' } // crate::http
        /* crate::uplink */ let raw = r#"crate::cli " "#; let quote = '\''; let s = "\"x";
        #[cfg(test)]
        #[allow(dead_code, reason = "x")]
        mod tests { fn g() { x.unwrap() } }
        fn h() { crate::config::y() }
    "##;
    let code = without_tests(&code_only(text));
    let used: Vec<String> = used_modules(&code).into_iter().collect();
    assert_eq!(used, ["agents", "config", "domain", "port"]);
    assert!(!code.contains("unwrap"), "{code}");
    assert_eq!(code.lines().count(), text.lines().count());
}
