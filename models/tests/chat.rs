//! Chat templates against Python's Jinja, set up as transformers sets it up (`data/chat-templates.json`), and against
//! templates that mean harm.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use pleiad_models::chat::{Fallback, RenderOptions};
use pleiad_models::{ChatTemplate, Error, Message, Role, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

/// 2023-11-14 22:13:20 UTC, which the reference was made with.
const NOW: u64 = 1_700_000_000;

fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Renders every case of a file; returns their number.
fn check(file: &[u8]) -> usize {
    let file: Value = serde_json::from_slice(file).unwrap();
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let text = |key: &str| case[key].as_str().map(str::to_owned);
        let template = ChatTemplate::new(file["templates"][name].as_str().unwrap(), text("bos"), text("eos")).unwrap();
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let options = RenderOptions {
            add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
            enable_thinking: case["enable_thinking"].as_bool(),
            extra: case["extra"].as_object().unwrap().clone(),
            now: Some(NOW),
        };
        match (template.render(&messages, options), text("expected")) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected, "{name}: {messages:?}"),
            (Err(Error::Template(_)), None) => {}
            (found, expected) => panic!("{name}: {found:?}, expected {expected:?}"),
        }
    }
    cases.len()
}

#[test]
fn templates_render_as_in_python() {
    assert!(check(&data("chat-templates.json")) > 200);
}

/// More cases of the same form, from a file outside the repository.
#[test]
#[allow(clippy::print_stdout, reason = "says what is skipped")]
fn published_templates_render_as_in_python() {
    let Some(path) = std::env::var_os("PLEIAD_CHAT_TEMPLATES") else {
        println!("SKIPPED published_templates_render_as_in_python: PLEIAD_CHAT_TEMPLATES is not set");
        return;
    };
    assert!(check(&std::fs::read(path).unwrap()) > 0);
}

fn conversation() -> Vec<Message> {
    vec![
        Message::new(Role::System, "S"),
        Message::new(Role::User, "Q"),
        Message::new(Role::Assistant, "<think>t</think>A"),
        Message::new(Role::User, "R"),
    ]
}

fn prompt(thinking: Option<bool>) -> RenderOptions {
    RenderOptions { add_generation_prompt: true, enable_thinking: thinking, ..RenderOptions::default() }
}

#[test]
fn fallbacks_are_the_published_formats() {
    let render = |kind, thinking| ChatTemplate::fallback(kind).render(&conversation(), prompt(thinking)).unwrap();
    assert_eq!(
        render(Fallback::DeepseekV2, None),
        "<｜begin▁of▁sentence｜>S\n\nUser: Q\n\nAssistant: <think>t</think>A<｜end▁of▁sentence｜>User: R\n\nAssistant:"
    );
    let v3 = "<｜begin▁of▁sentence｜>S<｜User｜>Q<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>R<｜Assistant｜>";
    assert_eq!(render(Fallback::DeepseekV3, None), v3);
    assert_eq!(render(Fallback::DeepseekV3, Some(true)), format!("{v3}<think>"));
    assert_eq!(render(Fallback::DeepseekV3, Some(false)), format!("{v3}</think>"));
    assert_eq!(
        render(Fallback::Kimi, None),
        "<|im_system|>system<|im_middle|>S<|im_end|><|im_user|>user<|im_middle|>Q<|im_end|>\
         <|im_assistant|>assistant<|im_middle|><think>t</think>A<|im_end|><|im_user|>user<|im_middle|>R<|im_end|>\
         <|im_assistant|>assistant<|im_middle|>"
    );
    assert_eq!(
        render(Fallback::Glm, None),
        "[gMASK]<sop><|system|>S<|user|>Q<|assistant|></think>A<|user|>R<|assistant|><think>"
    );
    assert!(render(Fallback::Glm, Some(false)).ends_with("<|assistant|></think>"));
}

#[test]
fn fallback_follows_the_special_tokens() {
    let tiny = Tokenizer::from_json(&data("tiny-tokenizer.json")).unwrap();
    assert_eq!(Fallback::of(&tiny), Fallback::DeepseekV3);
    let kimi = Tokenizer::from_tiktoken(&data("tiny.tiktoken"), Some(&data("tiny-tiktoken-config.json"))).unwrap();
    assert_eq!(Fallback::of(&kimi), Fallback::Kimi);
    let bare = Tokenizer::from_tiktoken(&data("tiny.tiktoken"), None).unwrap();
    assert_eq!(Fallback::of(&bare), Fallback::DeepseekV2);
}

#[test]
fn picks_the_default_of_several() {
    assert_eq!(ChatTemplate::pick(&json!("x")), Some("x".into()));
    let list = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
    assert_eq!(ChatTemplate::pick(&list), Some("d".into()));
    assert_eq!(ChatTemplate::pick(&json!([{"name": "rag", "template": "r"}])), Some("r".into()));
    for none in [json!([]), json!(null), json!(3), json!([1]), json!([{"name": "default"}]), json!({"template": "x"})] {
        assert_eq!(ChatTemplate::pick(&none), None);
    }
}

#[test]
fn messages_are_what_files_hold() {
    let message: Message = serde_json::from_str(r#"{"role":"assistant","content":"x"}"#).unwrap();
    assert_eq!(message, Message::new(Role::Assistant, "x"));
    assert_eq!(serde_json::to_string(&message).unwrap(), r#"{"role":"assistant","content":"x"}"#);
    for role in [Role::System, Role::User, Role::Assistant] {
        assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
    }
}

fn render(source: &str) -> Result<String, Error> {
    ChatTemplate::new(source, None, None)?.render(&conversation(), prompt(None))
}

#[test]
fn errors_say_what_is_wrong() {
    let message = |source: &str| render(source).unwrap_err().to_string();
    assert!(message("{{ raise_exception('roles must alternate') }}").contains("roles must alternate"));
    assert!(message("a\n{% if %}").contains("line 2") || message("a\n{% if %}").contains(":2"));
    assert!(message("{{ messages | nosuchfilter }}").contains("nosuchfilter"));
    assert!(!message("{{ raise_exception('a\nb') }}").contains('\n'));
}

#[test]
fn hostile_templates_end_in_errors() {
    for source in [
        "{% for i in range(10**9) %}{{ i }}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{{ g(n) }}{% endmacro %}{% macro g(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{{ 'x' * 10**12 }}",
        "{% for i in range(1000) %}{{ 'x' * 1000000 }}{% endfor %}",
        "{{ [0] * 10**12 }}",
        "{% include 'chat_template' %}",
        "{% extends 'chat_template' %}",
        "{% import 'chat_template' as x %}{{ x }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{{ 1 // 0 }}",
        "{{ ''[::-1] }}{{ 1 // 0 }}",
        "{{ 10 ** 10000 }}",
        "{{ messages[0].content.nosuch() }}",
        "{{ {} | tojson(indent=1000000000) }}",
    ] {
        let result = render(source);
        assert!(matches!(result, Err(Error::Template(_))), "{source}: {:?}", result.map(|s| s.len()));
    }
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(render(&format!("{{{{ {deep} }}}}")).is_err());
    let nested = format!("{}{}", "{% if 1 %}".repeat(50_000), "{% endif %}".repeat(50_000));
    assert!(render(&nested).is_err());
    assert!(ChatTemplate::new(" ".repeat(2 << 20), None, None).is_err());
}

#[test]
fn nested_values_fit_a_small_stack() {
    // A list in a list, as deep as the budget allows, must neither be written nor dropped recursively off the stack.
    let source = "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    for end in ["", "{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x == ns.x }}"] {
        let short = format!("{}{end}", source.replace("100000", "5000"));
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let thread = thread.spawn(move || render(&short).is_ok()).unwrap();
        thread.join().unwrap();
    }
    assert!(render(source).is_err());
}

#[test]
fn long_conversations_have_the_budget_they_need() {
    let messages: Vec<Message> = conversation().into_iter().cycle().take(20_000).collect();
    for kind in [Fallback::DeepseekV2, Fallback::DeepseekV3, Fallback::Kimi, Fallback::Glm] {
        let text = ChatTemplate::fallback(kind).render(&messages, prompt(None)).unwrap();
        assert!(text.len() > 20_000);
    }
    let long = [Message::new(Role::User, "x".repeat(20 << 20))];
    assert!(ChatTemplate::fallback(Fallback::Kimi).render(&long, prompt(None)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_template_panics(parts in prop::collection::vec(prop::sample::select(vec![
        "{{", "}}", "{%", "%}", "{#", "#}", "-", "+", " ", "\n", "if", "else", "endif", "for m in messages", "endfor", "set x = ",
        "set ns.x = ", "namespace(x=1)", "messages", "[0]", "[-1]", "[::2]", ".content", ".split('a')", "|", "tojson", "trim", "length",
        "macro f(x)", "endmacro", "f(1)", "(", ")", "[", "]", "{", "}", ",", ":", "'", "\"", "1", "0.5", "x", "==", "not", "in", "is defined",
        "~", "*", "**", "//", "loop.index", "range(5)", "none", "generation", "endgeneration", "block b", "endblock", "é", "\u{0}", "break",
    ]), 0..40)) {
        let source = parts.concat();
        let _ = render(&source);
        let _ = render(&parts.join(" "));
        let _ = render(&format!("{{% for m in messages %}}{{{{ {} }}}}{{% endfor %}}", parts.join(" ")));
    }

    #[test]
    fn no_text_panics(source in any::<String>(), content in any::<String>()) {
        let _ = render(&source);
        let messages = [Message::new(Role::User, content.clone())];
        let text = ChatTemplate::fallback(Fallback::Kimi).render(&messages, prompt(None)).unwrap();
        prop_assert!(text.contains(&content));
    }
}
