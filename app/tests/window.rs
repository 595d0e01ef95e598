//! A scripted session in a real window: the program itself, on a display of its own (Xvfb), with a keyboard and a mouse.
//!
//! Its pictures are kept in `target/window-session` for those who want to look.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
#![allow(clippy::print_stdout)] // skipped tests say so

#[path = "window/desk.rs"]
mod desk;

use std::{fs, path::Path, time::Duration};

use desk::Desk;

/// All that is kept of conversations.
fn kept(data: &Path) -> String {
    let files = fs::read_dir(data.join("chats")).into_iter().flatten().flatten();
    files.filter_map(|f| fs::read_to_string(f.path()).ok()).collect()
}

#[test]
fn a_session_in_a_real_window() {
    let Some(mut desk) = Desk::open() else {
        println!("SKIPPED a_session_in_a_real_window: Xvfb is not installed");
        return;
    };
    let data = std::env::temp_dir().join(format!("pleiad-window-{}", std::process::id()));
    let _ = fs::remove_dir_all(&data);
    desk.run(&data, &["--device", "cpu", "--temp", "0", "-n", "200"]);
    desk.wait("the window", Duration::from_secs(60), |d| d.window().is_some());
    // The box to write in has the keyboard from the start.
    std::thread::sleep(Duration::from_secs(3));
    desk.picture("1-start");
    desk.write("Tell me a short story about a cat.");
    desk.picture("2-question");
    desk.key("Return");
    desk.wait("an answer", Duration::from_secs(120), |_| kept(&data).contains("\"stop\":\"end\""));
    std::thread::sleep(Duration::from_millis(700));
    let answered = desk.picture("3-answer");
    desk.write("What is 47 + 85?");
    desk.key("Return");
    desk.wait("another answer", Duration::from_secs(120), |_| kept(&data).contains("132"));
    std::thread::sleep(Duration::from_millis(700));
    let more = desk.picture("4-another");
    assert_ne!(answered, more);

    // The palette, by keyboard.
    desk.chord(&["Control_L", "k"]);
    std::thread::sleep(Duration::from_millis(500));
    desk.write("settings");
    std::thread::sleep(Duration::from_millis(500));
    desk.picture("5-palette");
    desk.key("Return");
    std::thread::sleep(Duration::from_millis(700));
    let settings = desk.picture("6-settings");
    assert_ne!(settings, more);
    desk.chord(&["Alt_L", "2"]);
    std::thread::sleep(Duration::from_millis(700));
    desk.picture("7-experts");
    desk.chord(&["Alt_L", "1"]);
    desk.chord(&["Control_L", "m"]);
    std::thread::sleep(Duration::from_millis(1500));
    desk.picture("8-picker");
    desk.key("Escape");
    std::thread::sleep(Duration::from_millis(300));
    desk.chord(&["Control_L", "q"]);
    assert!(desk.ended(Duration::from_secs(20)), "Ctrl+Q does not end the program");

    // All of it is there again.
    desk.run(&data, &["--device", "cpu"]);
    desk.wait("the window", Duration::from_secs(60), |d| d.window().is_some());
    std::thread::sleep(Duration::from_secs(3));
    desk.picture("9-again");
    desk.close_window();
    assert!(desk.ended(Duration::from_secs(20)), "closing the window does not end the program");
    fs::remove_dir_all(&data).unwrap();
}
