//! The published schema of a report's JSON, and a check of JSON against it.
//!
//! The check knows the keywords that the schema uses, and refuses a schema with others.

use serde_json::Value;

/// The schema: JSON Schema, draft 2020-12.
pub const TEXT: &str = include_str!("../schema.json");

/// Keywords that say nothing about what is valid.
const REMARKS: [&str; 4] = ["$schema", "$defs", "title", "description"];

/// What of a report is not as the schema says, each with its place. Empty: all is.
pub fn violations(report: &Value) -> Vec<String> {
    match serde_json::from_str(TEXT) {
        Ok(schema) => violations_of(&schema, report),
        Err(e) => vec![format!("the schema is no JSON: {e}")],
    }
}

/// [`violations`] by any schema.
pub fn violations_of(schema: &Value, value: &Value) -> Vec<String> {
    let mut check = Check { root: schema, found: Vec::new() };
    check.walk(schema, value, "");
    check.found
}

struct Check<'a> {
    root: &'a Value,
    found: Vec<String>,
}

impl Check<'_> {
    fn say(&mut self, at: &str, what: &str) {
        let at = if at.is_empty() { "the report" } else { at };
        self.found.push(format!("{at}: {what}"));
    }

    fn walk(&mut self, schema: &Value, value: &Value, at: &str) {
        let Some(rules) = schema.as_object() else {
            return self.say(at, "the schema has no rules for it");
        };
        for (keyword, rule) in rules {
            match keyword.as_str() {
                "type" => {
                    let types: Vec<&str> = match rule {
                        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
                        one => one.as_str().into_iter().collect(),
                    };
                    if !types.iter().any(|t| is_of(value, t)) {
                        self.say(at, &format!("it is not of type {}", types.join(" or ")));
                    }
                }
                "const" if rule != value => self.say(at, &format!("it is not {rule}")),
                "enum" if !rule.as_array().is_some_and(|all| all.contains(value)) => {
                    self.say(at, &format!("{value} is none of {rule}"));
                }
                "pattern" => {
                    let fits = value.as_str().is_none_or(|v| rule.as_str().is_some_and(|p| fits(p, v)));
                    if !fits {
                        self.say(at, &format!("{value} does not match {rule}"));
                    }
                }
                "minimum" if value.as_f64().zip(rule.as_f64()).is_some_and(|(v, least)| v < least) => {
                    self.say(at, &format!("{value} is below {rule}"));
                }
                "minItems" if value.as_array().zip(rule.as_u64()).is_some_and(|(v, n)| (v.len() as u64) < n) => {
                    self.say(at, &format!("it has fewer than {rule} items"));
                }
                "maxItems" if value.as_array().zip(rule.as_u64()).is_some_and(|(v, n)| v.len() as u64 > n) => {
                    self.say(at, &format!("it has more than {rule} items"));
                }
                "required" => {
                    let names = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
                    for name in names.filter(|n| value.is_object() && value.get(n).is_none()) {
                        self.say(at, &format!("it has no `{name}`"));
                    }
                }
                "items" => {
                    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.walk(rule, item, &format!("{at}/{i}"));
                    }
                }
                "properties" => {
                    for (name, of) in rule.as_object().into_iter().flatten() {
                        if let Some(v) = value.get(name) {
                            self.walk(of, v, &format!("{at}/{name}"));
                        }
                    }
                }
                "additionalProperties" => self.more(schema, rule, value, at),
                "$ref" => match rule.as_str().and_then(|r| self.root.pointer(r.strip_prefix('#')?)) {
                    Some(of) => self.walk(of, value, at),
                    None => self.say(at, &format!("the schema has no {rule}")),
                },
                "anyOf" => {
                    let fits = |s: &Value| {
                        let mut check = Check { root: self.root, found: Vec::new() };
                        check.walk(s, value, at);
                        check.found.is_empty()
                    };
                    if !rule.as_array().into_iter().flatten().any(fits) {
                        self.say(at, &format!("{value} is of none of the kinds that it may be"));
                    }
                }
                "const" | "enum" | "minimum" | "minItems" | "maxItems" => {}
                other if REMARKS.contains(&other) => {}
                other => self.say(at, &format!("the schema's keyword `{other}` is not known here")),
            }
        }
    }

    /// Properties that are not named.
    fn more(&mut self, schema: &Value, rule: &Value, value: &Value, at: &str) {
        let named = |name: &str| schema.get("properties").is_some_and(|p| p.get(name).is_some());
        for (name, v) in value.as_object().into_iter().flatten().filter(|(name, _)| !named(name)) {
            match rule {
                Value::Bool(true) => {}
                Value::Bool(false) => self.say(at, &format!("`{name}` is not foreseen")),
                of => self.walk(of, v, &format!("{at}/{name}")),
            }
        }
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// Whether a text is as a pattern of the kind that the schema has: `^`, characters, classes, `.`, each with `+` or `{n}`, `$`.
/// Repetitions are greedy and not undone, which these patterns do not need.
fn fits(pattern: &str, text: &str) -> bool {
    let Some(pattern) = pattern.strip_prefix('^').and_then(|p| p.strip_suffix('$')) else { return false };
    let (mut pattern, mut text) = (pattern.chars().peekable(), text.chars().peekable());
    while let Some(c) = pattern.next() {
        let class: Option<Vec<char>> = match c {
            '.' => None,
            '[' => Some(pattern.by_ref().take_while(|&c| c != ']').collect()),
            c => Some(vec![c, '-', c]),
        };
        let is = |c: char| match &class {
            None => true,
            Some(class) => class.chunks(3).any(|range| matches!(range, &[from, '-', to] if (from..=to).contains(&c))),
        };
        let (least, most) = match pattern.peek() {
            Some('+') => {
                pattern.next();
                (1, usize::MAX)
            }
            Some('{') => {
                let n = pattern.by_ref().skip(1).take_while(|&c| c != '}').collect::<String>().parse().unwrap_or(0);
                (n, n)
            }
            _ => (1, 1),
        };
        let mut n = 0;
        while n < most && text.next_if(|&c| is(c)).is_some() {
            n += 1;
        }
        if n < least {
            return false;
        }
    }
    text.next().is_none()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use serde_json::json;

    use super::*;
    use crate::report::{Identity, Measure, Report, SCHEMA, Settings, Test, Verdict};
    use crate::summary::VERDICTS;

    /// A report in which everything occurs.
    fn full() -> Report {
        let measure = Measure {
            value: f64::INFINITY,
            unit: "ulp".into(),
            most: Some(2.5),
            least: Some(0.0),
            at: "0x1p3".into(),
            curve: vec![(1.0, 2.0), (2.0, f64::NAN)],
        };
        let test = |verdict: Verdict| Test {
            id: format!("scalar/{}", verdict.name()),
            verdict,
            words: "why".into(),
            measures: [("worst".to_owned(), measure.clone()), ("runs".to_owned(), Measure::default())].into(),
            seconds: 0.25,
        };
        Report {
            schema: SCHEMA,
            program: "pleiad 0.1.0".into(),
            date: "2026-01-02T03:04:05Z".into(),
            settings: Settings { quick: true, strict: true, only: vec!["exp".into()] },
            identity: Identity {
                name: "X".into(),
                versions: [("wgpu".to_owned(), "30".to_owned())].into(),
                limits: [("max_buffer_size".to_owned(), u64::MAX)].into(),
                features: vec!["f16".into()],
                subgroup_sizes: Some((8, 32)),
                subgroup_sizes_seen: vec![8],
                tier: "subgroup".into(),
                ..Identity::default()
            },
            tests: VERDICTS.map(test).to_vec(),
            complete: true,
        }
    }

    #[test]
    fn what_a_report_holds_is_what_the_schema_says() {
        let value = serde_json::to_value(full()).unwrap();
        assert_eq!(violations(&value), [""; 0]);
        let bare = Report { identity: Identity::default(), tests: Vec::new(), ..full() };
        assert_eq!(violations(&serde_json::to_value(bare).unwrap()), [""; 0]);
        // Nothing that the schema names is missing from a full report: neither has what the other lacks.
        let schema: Value = serde_json::from_str(TEXT).unwrap();
        for (of, value) in [
            ("/properties", &value),
            ("/$defs/settings/properties", &value["settings"]),
            ("/$defs/identity/properties", &value["identity"]),
            ("/$defs/test/properties", &value["tests"][0]),
            ("/$defs/measure/properties", &value["tests"][0]["measures"]["worst"]),
        ] {
            for name in schema.pointer(of).unwrap().as_object().unwrap().keys() {
                assert!(value.get(name).is_some(), "{of}: {name}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_found() {
        type Change<'a> = &'a dyn Fn(&mut Value);
        let good = serde_json::to_value(full()).unwrap();
        let wrong = |change: Change<'_>| {
            let mut value = good.clone();
            change(&mut value);
            violations(&value)
        };
        let cases: [(Change<'_>, &str); 9] = [
            (&|v| v["schema"] = json!(2), "/schema"),
            (&|v| v["more"] = json!(1), "`more`"),
            (&|v| v["tests"][1]["verdict"] = json!("good"), "/tests/1/verdict"),
            (&|v| v["tests"][0]["id"] = json!("nosection"), "/tests/0/id"),
            (&|v| v["tests"][0]["seconds"] = json!(-1), "/tests/0/seconds"),
            (&|v| v["tests"][0]["measures"]["worst"]["curve"][0] = json!([1]), "/curve/0"),
            (&|v| v["identity"]["subgroup_sizes"] = json!([8]), "/identity/subgroup_sizes"),
            (&|v| v["identity"]["limits"]["x"] = json!(1.5), "/identity/limits/x"),
            (&|v| v["date"] = json!("yesterday"), "/date"),
        ];
        for (change, place) in cases {
            let found = wrong(change);
            assert!(found.len() == 1 && found[0].contains(place), "{place}: {found:?}");
        }
        let mut lacking = good.clone();
        lacking.as_object_mut().unwrap().remove("tests");
        assert_eq!(violations(&lacking), ["the report: it has no `tests`"]);
        assert!(violations_of(&json!({ "minLength": 2 }), &json!("x"))[0].contains("minLength"));
    }
}
