//! Killed in mid-answer: all that was shown is found again.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use pleiad_app::chats::{Library, Stop, storage::Folder};
use pleiad_models::Role;

use crate::stage::{Stage, ask, folder, last, loaded, until};

/// Where the child keeps its files.
const DATA: &str = "PLEIAD_TEST_CRASH";

#[test]
#[ignore = "the child of `a_kill_in_mid_answer_loses_nothing_that_was_shown`"]
fn child() {
    let data = std::env::var_os(DATA).unwrap();
    let mut harness = Stage::default().open(data.as_ref());
    loaded(&mut harness);
    ask(&mut harness, "Tell me a long story about a cat.");
    until(&mut harness, "the end", |app| {
        // What this frame shows. The parent kills somewhere in here.
        if app.open_chat().is_some_and(|c| app.library().peek(c).is_some_and(|c| !c.tree.is_empty()))
            && last(app).role == Role::Assistant
        {
            println!("SHOWN {}", serde_json::to_string(&last(app).text).unwrap());
            std::io::stdout().flush().unwrap();
        }
        false
    });
}

#[test]
fn a_kill_in_mid_answer_loses_nothing_that_was_shown() {
    let data = folder("crash");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::child", "--exact", "--ignored", "--nocapture"])
        .env(DATA, &data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut shown = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, json)) = line.split_once("SHOWN ") else { continue };
        shown = serde_json::from_str(json).unwrap();
        if shown.len() > 60 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(shown.len() > 60, "the child showed {shown:?}");

    let mut library = Library::open(Box::new(Folder::new(data.join("chats"))));
    assert_eq!(library.take_problems(), Vec::<String>::new());
    let id = library.summaries()[0].id.clone();
    let chat = library.chat(&id).unwrap();
    let answer = chat.tree.get(chat.tree.leaf().unwrap()).unwrap();
    assert!(answer.text.starts_with(&shown), "shown: {shown}\nfound: {}", answer.text);
    assert_eq!(answer.answer.as_ref().unwrap().stop, Stop::Unfinished);

    // The program says so, and can go on.
    let mut harness = Stage { setup: None, ..Stage::default() }.open(&data);
    loaded(&mut harness);
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, pleiad_app::ui::Action::OpenChat(id));
    harness.run_steps(3);
    use egui_kittest::kittest::Queryable as _;
    assert!(harness.query_all_by_label_contains("The program ended here").next().is_some());
    crate::stage::click(&mut harness, "Continue answer");
    crate::stage::answered(&mut harness);
    assert!(last(harness.state()).text.starts_with(&shown) && last(harness.state()).text.len() > shown.len());
}
