//! `tojson` as Python's `json.dumps(..., ensure_ascii=False)` writes it: `{"a": 1, "b": [2, 3]}`.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Lists in lists, and so on.
const MAX_LEVELS: usize = 64;
/// The longest text that is written.
const MAX_BYTES: usize = 4 << 20;

fn failed(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {}", what.into()))
}

/// How to write.
struct Style {
    /// Blanks for each level; `None`: all in one line.
    indent: Option<usize>,
    ascii: bool,
    sorted: bool,
    between_items: String,
    after_key: String,
}

/// The filter: `indent`, `ensure_ascii`, `separators` and `sort_keys` as in Python.
pub(super) fn tojson(value: &Value, indent: Option<Value>, options: &Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<Value>>("indent")?,
    };
    let indent = match indent.filter(|i| !i.is_none() && !i.is_undefined()) {
        Some(indent) => Some(indent.as_usize().filter(|&n| n <= 16).ok_or_else(|| failed("indent must be 0 to 16"))?),
        None => None,
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (between_items, after_key) = match separators.as_deref() {
        Some([items, keys]) => (items.clone(), keys.clone()),
        Some(_) => return Err(failed("separators must be a pair")),
        None => (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut out = String::new();
    Style { indent, ascii, sorted, between_items, after_key }.write(value, 0, &mut out)?;
    Ok(Value::from(out))
}

impl Style {
    fn new_line(&self, level: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * level));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{C}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) || (self.ascii && c == '\u{7F}') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }

    fn write(&self, value: &Value, level: usize, out: &mut String) -> Result<(), Error> {
        if level > MAX_LEVELS {
            return Err(failed("the value is nested too deeply"));
        }
        match value.kind() {
            ValueKind::None | ValueKind::Undefined => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                self.items(('[', ']'), value.try_iter()?.map(|item| (None, item)), level, out)?;
            }
            ValueKind::Map => {
                let mut entries = Vec::new();
                for key in value.try_iter()? {
                    entries.push((key.to_string(), value.get_item(&key)?));
                }
                if self.sorted {
                    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.items(('{', '}'), entries.into_iter().map(|(key, item)| (Some(key), item)), level, out)?;
            }
            _ => return Err(failed(format!("{value} is not JSON"))),
        }
        Ok(())
    }

    fn items(
        &self,
        (open, close): (char, char),
        items: impl Iterator<Item = (Option<String>, Value)>,
        level: usize,
        out: &mut String,
    ) -> Result<(), Error> {
        out.push(open);
        let mut empty = true;
        for (key, item) in items {
            if !empty {
                out.push_str(&self.between_items);
            }
            empty = false;
            self.new_line(level + 1, out);
            if let Some(key) = key {
                self.string(&key, out);
                out.push_str(&self.after_key);
            }
            self.write(&item, level + 1, out)?;
            if out.len() > MAX_BYTES {
                return Err(failed("the value is too large"));
            }
        }
        if !empty {
            self.new_line(level, out);
        }
        out.push(close);
        Ok(())
    }
}

/// JSON as the template engine holds it.
pub(super) fn to_value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(n), _, _) => Value::from(n),
            (_, Some(n), _) => Value::from(n),
            (_, _, n) => n.map_or(Value::UNDEFINED, Value::from),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(to_value).collect(),
        serde_json::Value::Object(map) => Value::from_pairs(map.iter().map(|(key, item)| (key.as_str(), to_value(item)))),
    }
}
