#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use pleiad_runtime::{SamplingParams, engine::GenerationStats};

use super::*;
use crate::{
    chats::{
        ChatId, Duet, Sampling, Stop,
        log::{self, Event},
    },
    conversation::Conversation,
};

fn say(chat: &mut Chat, id: u64, parent: Option<u64>, role: Role, author: Option<&str>, text: &str, answer: Option<Answer>) {
    let event = Event::Message {
        id: MessageId(id),
        parent: parent.map(MessageId),
        role,
        author: author.map(str::to_owned),
        at: 1_709_294_400_000 + id,
        text: text.into(),
        rating: (id == 2).then_some(Rating::Good),
        answer,
    };
    log::apply(chat, event).unwrap();
}

fn chat() -> Chat {
    let setup = Setup {
        system: "Be brief.".into(),
        sampling: Sampling { temperature: Some(0.5), seed: Some(7), ..Sampling::default() },
        max_tokens: Some(100),
        duet: Duet { on: true, model: Some("b".into()), ..Duet::default() },
    };
    let mut chat = Chat::new(ChatId("x".into()), 1_709_294_400_000, setup);
    let mut stats = GenerationStats {
        prompt_tokens: 120,
        reused_tokens: 100,
        generated_tokens: 36,
        prefill_seconds: 0.5,
        decode_seconds: 2.0,
        ..GenerationStats::default()
    };
    (stats.decode_device.expert_hits, stats.decode_device.expert_misses) = (15, 5);
    let answer = |stop| Answer {
        second: false,
        model: "tiny_moe".into(),
        device: "CPU".into(),
        sampled: SamplingParams { temperature: 0.5, ..SamplingParams::default() },
        thinking: true,
        thought_seconds: Some(4.25),
        stats: Some(stats),
        stop,
    };
    say(&mut chat, 1, None, Role::User, None, "Why is the *sky* blue?", None);
    say(&mut chat, 2, Some(1), Role::Assistant, None, "It </details> scatters.\n</think>\n\nBecause.\n", Some(answer(Stop::End)));
    say(
        &mut chat,
        3,
        Some(2),
        Role::Assistant,
        Some("Critic"),
        "Hm <think>b</think> c",
        Some(answer(Stop::Failed("no\nroom".into()))),
    );
    say(&mut chat, 4, None, Role::User, None, "Other question", None);
    chat.tree.show(MessageId(1));
    (chat.pinned, chat.title) = (true, "Sky [blue]".into());
    chat
}

#[test]
fn markdown_is_attributed_with_reasoning_and_statistics() {
    let text = to_markdown(&chat());
    assert_eq!(
        text,
        "# Sky \\[blue\\]\n\n*Begun on 2024-03-01 at 12:00 UTC; 1 message is on other branches*\n\n## System\n\nBe brief.\n\n\
         ## User\n\nWhy is the *sky* blue?\n\n## Assistant\n\n\
         <details>\n<summary>Reasoning (4.2 s)</summary>\n\nIt &lt;/details> scatters.\n\n</details>\n\nBecause.\n\n\
         *tiny\\_moe · prompt 120 tokens (100 cached) · first token after 0.50 s · 36 tokens at 17.5 tokens/s · \
         expert hit rate 75.0% · ended by the model · rated good*\n\n\
         ## Critic (assistant)\n\n\
         <details>\n<summary>Reasoning (4.2 s)</summary>\n\nHm <think>b\n\n</details>\n\n c\n\n\
         *tiny\\_moe · prompt 120 tokens (100 cached) · first token after 0.50 s · 36 tokens at 17.5 tokens/s · \
         expert hit rate 75.0% · failed (no room)*\n"
    );
}

fn imported(name: &str, bytes: &[u8]) -> Chat {
    let mut imported = import(name, bytes, 5).unwrap();
    assert!(imported.lost.is_empty() && imported.chats.len() == 1, "{:?}", imported.lost);
    imported.chats.remove(0)
}

fn same(a: &Chat, b: &Chat) {
    assert_eq!(to_json(a), to_json(b));
    assert_eq!(a.tree.messages(), b.tree.messages());
    assert_eq!(a.tree.path(), b.tree.path());
}

#[test]
fn json_and_logs_come_back_whole() {
    let chat = chat();
    same(&imported("a.json", to_json(&chat).as_bytes()), &chat);
    same(&imported("a.chat.jsonl", &log::write(&chat)), &chat);
    let two = format!("\u{feff}[{},{}]", to_json(&chat), to_json(&chat));
    assert_eq!(import("a.json", two.as_bytes(), 5).unwrap().chats.len(), 2);
    // On one line each.
    let compact = serde_json::from_str::<serde_json::Value>(&to_json(&chat)).unwrap().to_string();
    assert_eq!(import("a.jsonl", format!("{compact}\n\n{compact}\n").as_bytes(), 5).unwrap().chats.len(), 2);
}

#[test]
fn what_the_command_line_saves_is_taken() {
    let mut conversation = Conversation::new(Some("Be brief."));
    conversation.ask("one");
    conversation.answer("<think>\nh\n</think>\n\n1");
    conversation.ask("two");
    let chat = imported("saved.json", conversation.to_json("tiny").as_bytes());
    assert_eq!((chat.setup.system.as_str(), chat.title.as_str(), chat.created_ms), ("Be brief.", "one", 5));
    let said: Vec<_> = chat.tree.messages().iter().map(|m| (m.role, m.text.as_str(), m.parent.map(|p| p.0))).collect();
    let expected =
        [(Role::User, "one", None), (Role::Assistant, "<think>\nh\n</think>\n\n1", Some(2)), (Role::User, "two", Some(3))];
    assert_eq!(said, expected);
    let answer = chat.tree.messages()[1].answer.clone().unwrap();
    assert_eq!((answer.model.as_str(), answer.stop, answer.stats), ("tiny", Stop::End, None));
    assert_eq!(chat.tree.shown_path().len(), 3);
}

#[test]
fn lists_of_other_programs_are_taken() {
    let texts = |chat: &Chat| chat.tree.messages().iter().map(|m| (m.role, m.text.clone())).collect::<Vec<_>>();
    let bare =
        imported("a.json", br#"[{"role":"user","content":"hi"},{"role":"assistant","content":"ho","reasoning_content":"hm"}]"#);
    assert_eq!(texts(&bare), [(Role::User, "hi".into()), (Role::Assistant, "<think>\nhm\n</think>\n\nho".into())]);
    let share = imported("a.json", br#"{"id":"7","conversations":[{"from":"human","value":"hi"},{"from":"gpt","value":"ho"}]}"#);
    assert_eq!(texts(&share), [(Role::User, "hi".into()), (Role::Assistant, "ho".into())]);
    let many = br#"[{"conversations":[{"from":"human","value":"a"}]},{"messages":[{"role":"user","content":"b"}],"title":"B"}]"#;
    let many = import("a.json", many, 5).unwrap().chats;
    assert_eq!(many.iter().map(|c| c.title.as_str()).collect::<Vec<_>>(), ["a", "B"]);
    let parts = br#"{"messages":[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{}}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"c"}]},{"role":"tool","name":"t","content":"42"},
        {"role":"system","content":"late"}]}"#;
    let parts = imported("a.json", parts);
    assert_eq!(parts.tree.messages()[0].text, "see\n\n[image_url]");
    assert!(parts.tree.messages()[1].text.contains("\"id\": \"c\""));
    assert_eq!(parts.tree.messages()[2].author.as_deref(), Some("tool"));
    assert_eq!((parts.tree.messages()[3].role, parts.setup.system.as_str()), (Role::System, ""));
    let named = imported("notes of may.json", br#"[{"role":"assistant","content":"x"}]"#);
    assert_eq!(named.title, "notes of may");
}

#[test]
fn what_cannot_be_taken_is_told() {
    for (bytes, told) in [
        (&b""[..], "empty"),
        (b" \n", "empty"),
        (b"\xff\xfe\x00", "neither"),
        (b"hello", "not JSON"),
        (b"{\"a\":", "not JSON"),
        (b"{}", "no messages"),
        (b"[]", "no messages"),
        (b"7", "no messages"),
        (br#"{"messages":[]}"#, "no messages"),
        (br#"{"messages":[1]}"#, "message 1"),
        (br#"{"messages":[{"role":"user","content":"x"},{"content":"y"}]}"#, "message 2"),
        (br#"{"messages":[{"role":"system","content":"x"}]}"#, "no messages"),
        (br#"{"format":"pleiad-chat","version":2,"messages":[]}"#, "later version"),
        (br#"{"format":"pleiad-chat","version":1,"created":1,"updated":1,"messages":[]}"#, "no messages"),
        (br#"{"format":"pleiad-chat","version":1}"#, "missing field"),
        (b"{\"chat\":{\"version\":1,\"created\":1}}\n", "nothing was said"),
    ] {
        let error = import("a.json", bytes, 5).unwrap_err();
        assert!(error.starts_with("a.json cannot be imported: ") && error.contains(told), "{error}");
    }
    assert!(import("a", "[".repeat(1 << 20).as_bytes(), 5).is_err());
    // Cycles, two of a name, and strangers as parents.
    let good: serde_json::Value = serde_json::from_str(&to_json(&chat())).unwrap();
    for (message, key, value) in [(0, "parent", 2), (0, "parent", 1), (2, "parent", 99), (2, "id", 2), (1, "id", 1)] {
        let mut bad = good.clone();
        bad["messages"][message][key] = value.into();
        assert!(import("a", bad.to_string().as_bytes(), 5).is_err(), "{message} {key} {value}");
        // Beside a good one it is told, and the good one is taken.
        let both = import("a", serde_json::json!([bad, good]).to_string().as_bytes(), 5).unwrap();
        assert_eq!((both.chats.len(), both.lost.len()), (1, 1));
    }
}

#[test]
fn a_damaged_log_is_taken_as_far_as_it_goes() {
    let mut lines = log::lines(&chat());
    let damaged = lines.iter().position(|l| l.starts_with(b"{\"message\":{\"id\":2,")).unwrap();
    lines[damaged] = b"{\"mess\n".to_vec();
    let taken = import("a.chat.jsonl", &lines.concat(), 5).unwrap();
    assert_eq!((taken.chats.len(), taken.chats[0].tree.len()), (1, 3));
    assert!(taken.lost[0].contains("2 lines"), "{:?}", taken.lost);
}
