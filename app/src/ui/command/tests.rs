use std::collections::HashSet;

use super::*;

const SHIFT: Modifiers = Modifiers::SHIFT;

/// Keys that browsers have for themselves, on one system or another. Some of them a page could take; none of them it should.
fn reserved() -> Vec<(Modifiers, Key)> {
    use Key::*;
    let digits = [Num0, Num1, Num2, Num3, Num4, Num5, Num6, Num7, Num8, Num9];
    let of = |modifiers: Modifiers, keys: &[Key]| keys.iter().map(|&k| (modifiers, k)).collect::<Vec<_>>();
    [
        // Tabs, windows, addresses, search, reload, history, bookmarks, source, zoom.
        of(CTRL, &[A, B, C, D, E, F, G, H, I, J, K, L, M, N, P, Q, R, T, U, V, W, X, Z, Tab, PageUp, PageDown, F4, F5]),
        of(CTRL, &[Plus, Equals, Minus]),
        of(CTRL, &digits),
        of(CTRL_SHIFT, &[A, B, C, D, E, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, V, W, Y, Tab, Delete, Backspace]),
        of(Modifiers::NONE, &[F1, F3, F5, F6, F7, F9, F10, F11, F12, Tab]),
        of(SHIFT, &[F5, F6, F9, F10, Tab]),
        // Menus, the address bar, history, the home page, tabs on Linux.
        of(ALT, &[B, D, E, F, H, S, T, V, ArrowLeft, ArrowRight, Home, F4, Tab, Space]),
        of(ALT, &digits),
        of(ALT_SHIFT, &[A, B, I, T]),
    ]
    .concat()
}

#[test]
fn every_command_is_listed_once_with_a_name_and_a_shortcut_of_its_own() {
    let names: HashSet<_> = Command::ALL.iter().map(|c| c.name()).collect();
    assert_eq!(names.len(), Command::ALL.len());
    for host in [Host::Window, Host::Browser] {
        let shortcuts: Vec<_> = Command::ALL.iter().filter_map(|c| c.shortcut_on(host)).collect();
        let distinct: HashSet<_> = shortcuts.iter().map(|s| format!("{s:?}")).collect();
        assert_eq!(distinct.len(), shortcuts.len(), "{host:?}");
    }
    assert!(Command::ALL.iter().all(|c| !c.explanation().ends_with('.') && Group::ALL.contains(&c.group())));
}

#[test]
fn in_a_browser_no_command_needs_a_key_of_the_browser() {
    let reserved = reserved();
    for command in Command::ALL {
        if let Some(s) = command.shortcut_on(Host::Browser) {
            assert!(!reserved.contains(&(s.modifiers, s.logical_key)), "{command:?}: {s:?}");
        }
    }
    // The list does say what it is for.
    let taken = |c: Command| c.shortcut_on(Host::Window).is_some_and(|s| reserved.contains(&(s.modifiers, s.logical_key)));
    assert!([Command::NewChat, Command::FocusInput, Command::Quit, Command::Search].into_iter().all(taken));
}

#[test]
fn what_has_a_key_in_a_window_has_one_in_a_browser() {
    // The browser's zoom makes text larger and smaller.
    let zoom = [Command::LargerText, Command::SmallerText, Command::UsualText];
    for command in Command::ALL.into_iter().filter(|c| c.exists(Host::Browser) && !zoom.contains(c)) {
        assert_eq!(command.shortcut_on(Host::Window).is_some(), command.shortcut_on(Host::Browser).is_some(), "{command:?}");
    }
    assert!(!Command::Quit.exists(Host::Browser) && !Command::OpenFolder.exists(Host::Browser));
    assert_eq!(Command::Quit.shortcut_on(Host::Browser), None);
}
