//! Every command: its name, what it does, and its shortcut. Menus, buttons, the palette, the list of shortcuts and the keyboard
//! itself all read this one list.

use egui::{Context, Event, Key, KeyboardShortcut, Modifiers};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// A new conversation.
    NewChat,
    /// The conversation before this one in the list.
    PreviousChat,
    /// The one after it.
    NextChat,
    /// Names the conversation.
    RenameChat,
    /// Pins it, or no longer.
    PinChat,
    /// Deletes it.
    DeleteChat,
    /// Takes back what was deleted last.
    UndoDelete,
    /// Writes it as Markdown.
    ExportMarkdown,
    /// Writes it as JSON.
    ExportJson,
    /// Reads conversations from a file.
    ImportChats,
    /// Searches all conversations.
    Search,
    /// Puts the cursor where messages are written.
    FocusInput,
    /// Stops the answer.
    Stop,
    /// Answers anew.
    Regenerate,
    /// Edits the last question.
    EditLast,
    /// Goes on with the last answer.
    Continue,
    /// Copies the last answer.
    CopyLast,
    /// To the end of the conversation.
    JumpToEnd,
    /// System prompt, sampling and second mind.
    ToggleSetup,
    /// Chooses a model.
    OpenPicker,
    /// Loads the embedded model.
    LoadTiny,
    /// Opens a model file.
    OpenFile,
    /// Opens a model folder.
    OpenFolder,
    /// The conversation.
    ShowChat,
    /// The experts alone.
    ShowExperts,
    /// Devices and performance.
    ShowPerformance,
    /// Settings.
    ShowSettings,
    /// The log.
    ShowLog,
    /// The list of conversations.
    ToggleSidebar,
    /// The experts beside the conversation.
    ToggleExperts,
    /// The next way of showing experts.
    NextMode,
    /// Starts counting experts anew.
    ClearExperts,
    /// Records what experts do, or stops.
    ToggleRecording,
    /// Light or dark.
    ToggleTheme,
    /// Larger text.
    LargerText,
    /// Smaller text.
    SmallerText,
    /// Usual text.
    UsualText,
    /// This list, searched by typing.
    OpenPalette,
    /// All shortcuts.
    ShowShortcuts,
    /// Ends the program.
    Quit,
}

/// What commands are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Conversations.
    Conversation,
    /// Messages.
    Message,
    /// Models.
    Model,
    /// Experts.
    Experts,
    /// The window.
    Window,
}

impl Group {
    /// Every group, in the order of lists.
    pub const ALL: [Self; 5] = [Self::Conversation, Self::Message, Self::Model, Self::Experts, Self::Window];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conversation => "Conversation",
            Self::Message => "Message",
            Self::Model => "Model",
            Self::Experts => "Experts",
            Self::Window => "Window",
        }
    }
}

/// Where the program runs, as far as keys are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A window of its own: all keys are the program's.
    Window,
    /// A browser, which keeps the keys of its own commands (tabs, addresses, search, zoom) to itself.
    Browser,
}

impl Host {
    /// Where this program runs.
    pub const HERE: Self = if cfg!(target_arch = "wasm32") { Self::Browser } else { Self::Window };
}

const CTRL: Modifiers = Modifiers::COMMAND;
const CTRL_SHIFT: Modifiers = Modifiers::COMMAND.plus(Modifiers::SHIFT);
const ALT: Modifiers = Modifiers::ALT;
const ALT_SHIFT: Modifiers = Modifiers::ALT.plus(Modifiers::SHIFT);
/// With digits. On a Mac Option and a digit write characters.
const PAGE: Modifiers = if cfg!(target_os = "macos") { CTRL } else { ALT };

impl Command {
    /// Every command, in the order of lists.
    pub const ALL: [Self; 40] = [
        Self::NewChat,
        Self::PreviousChat,
        Self::NextChat,
        Self::RenameChat,
        Self::PinChat,
        Self::DeleteChat,
        Self::UndoDelete,
        Self::ExportMarkdown,
        Self::ExportJson,
        Self::ImportChats,
        Self::Search,
        Self::ToggleSetup,
        Self::FocusInput,
        Self::Stop,
        Self::Regenerate,
        Self::EditLast,
        Self::Continue,
        Self::CopyLast,
        Self::JumpToEnd,
        Self::OpenPicker,
        Self::LoadTiny,
        Self::OpenFile,
        Self::OpenFolder,
        Self::ToggleExperts,
        Self::ShowExperts,
        Self::NextMode,
        Self::ClearExperts,
        Self::ToggleRecording,
        Self::ShowChat,
        Self::ShowPerformance,
        Self::ShowSettings,
        Self::ShowLog,
        Self::ToggleSidebar,
        Self::ToggleTheme,
        Self::LargerText,
        Self::SmallerText,
        Self::UsualText,
        Self::OpenPalette,
        Self::ShowShortcuts,
        Self::Quit,
    ];

    /// What it is called, and what it does.
    pub fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::NewChat => ("New conversation", "Begin another conversation"),
            Self::PreviousChat => ("Previous conversation", "Open the conversation above this one in the list"),
            Self::NextChat => ("Next conversation", "Open the conversation below this one in the list"),
            Self::RenameChat => ("Rename conversation", "Give this conversation another title"),
            Self::PinChat => ("Pin conversation", "Keep this conversation at the top of the list, or no longer"),
            Self::DeleteChat => ("Delete conversation", "Delete this conversation; it can be taken back"),
            Self::UndoDelete => ("Undo delete", "Take back the conversation that was deleted last"),
            Self::ExportMarkdown => ("Export as Markdown...", "Write this conversation to a file for people"),
            Self::ExportJson => ("Export as JSON...", "Write this conversation with all branches and statistics to a file"),
            Self::ImportChats => ("Import conversations...", "Read conversations from a file"),
            Self::Search => ("Search conversations", "Find words in all conversations"),
            Self::FocusInput => ("Write a message", "Put the cursor where messages are written"),
            Self::Stop => ("Stop", "Stop the answer that is being written"),
            Self::Regenerate => ("Regenerate answer", "Answer the last question anew, beside the old answer"),
            Self::EditLast => ("Edit last question", "Say something else in the place of the last question"),
            Self::Continue => ("Continue answer", "Go on with the last answer where it ended"),
            Self::CopyLast => ("Copy last answer", "Put the last answer on the clipboard"),
            Self::JumpToEnd => ("Jump to the end", "Scroll to the end of the conversation"),
            Self::ToggleSetup => ("Conversation settings", "System prompt, sampling and second mind of this conversation"),
            Self::OpenPicker => ("Choose a model...", "Choose a model, and see what would go where"),
            Self::LoadTiny => ("Load the embedded model", "Load the small model that comes with the program"),
            Self::OpenFile => ("Open a model file...", "Open a .gguf file"),
            Self::OpenFolder => ("Open a model folder...", "Open a folder with safetensors"),
            Self::ShowChat => ("Show conversation", "Show the conversation"),
            Self::ShowExperts => ("Show experts alone", "Give the whole page to the experts"),
            Self::ShowPerformance => ("Devices and performance", "Devices, memory and timings"),
            Self::ShowSettings => ("Settings", "Theme, text size, memory budget"),
            Self::ShowLog => ("Log", "What the program has reported"),
            Self::ToggleSidebar => ("Conversation list", "Show or hide the list of conversations"),
            Self::ToggleExperts => ("Experts beside the conversation", "Show or hide the experts beside the conversation"),
            Self::NextMode => ("Next view of the experts", "Show another quantity in the grid"),
            Self::ClearExperts => ("Count experts anew", "Forget what experts did so far"),
            Self::ToggleRecording => ("Record experts", "Record what experts do, or stop recording"),
            Self::ToggleTheme => ("Light or dark", "Switch between light and dark"),
            Self::LargerText => ("Larger text", "Make text larger"),
            Self::SmallerText => ("Smaller text", "Make text smaller"),
            Self::UsualText => ("Usual text size", "Make text as large as usual"),
            Self::OpenPalette => ("Command palette", "Find a command by typing"),
            Self::ShowShortcuts => ("Keyboard shortcuts", "List every shortcut"),
            Self::Quit => ("Quit", "End the program"),
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        self.texts().0
    }

    /// What it does, in a sentence without a full stop.
    pub fn explanation(self) -> &'static str {
        self.texts().1
    }

    /// What it is about.
    pub fn group(self) -> Group {
        match self {
            Self::NewChat
            | Self::PreviousChat
            | Self::NextChat
            | Self::RenameChat
            | Self::PinChat
            | Self::DeleteChat
            | Self::UndoDelete
            | Self::ExportMarkdown
            | Self::ExportJson
            | Self::ImportChats
            | Self::Search
            | Self::ToggleSetup => Group::Conversation,
            Self::FocusInput
            | Self::Stop
            | Self::Regenerate
            | Self::EditLast
            | Self::Continue
            | Self::CopyLast
            | Self::JumpToEnd => Group::Message,
            Self::OpenPicker | Self::LoadTiny | Self::OpenFile | Self::OpenFolder => Group::Model,
            Self::ToggleExperts | Self::ShowExperts | Self::NextMode | Self::ClearExperts | Self::ToggleRecording => {
                Group::Experts
            }
            Self::ShowChat
            | Self::ShowPerformance
            | Self::ShowSettings
            | Self::ShowLog
            | Self::ToggleSidebar
            | Self::ToggleTheme
            | Self::LargerText
            | Self::SmallerText
            | Self::UsualText
            | Self::OpenPalette
            | Self::ShowShortcuts
            | Self::Quit => Group::Window,
        }
    }

    /// Whether there is this command there: a page has no window to close, and no folders.
    pub fn exists(self, host: Host) -> bool {
        host == Host::Window || !matches!(self, Self::Quit | Self::OpenFolder)
    }

    /// Every command there is here, in the order of lists.
    pub fn here() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|c| c.exists(Host::HERE))
    }

    /// Its shortcut.
    pub fn shortcut(self) -> Option<KeyboardShortcut> {
        self.shortcut_on(Host::HERE)
    }

    /// Its shortcut there.
    pub fn shortcut_on(self, host: Host) -> Option<KeyboardShortcut> {
        let keys = match host {
            Host::Window => self.keys_of_windows(),
            Host::Browser => self.keys_of_pages(),
        };
        keys.filter(|_| self.exists(host)).map(|(modifiers, key)| KeyboardShortcut::new(modifiers, key))
    }

    /// None of them depends on where letters are on a keyboard, apart from those that all programs have.
    fn keys_of_windows(self) -> Option<(Modifiers, Key)> {
        Some(match self {
            Self::NewChat => (CTRL, Key::N),
            Self::PreviousChat => (ALT, Key::ArrowUp),
            Self::NextChat => (ALT, Key::ArrowDown),
            Self::RenameChat => (Modifiers::NONE, Key::F2),
            Self::DeleteChat => (CTRL_SHIFT, Key::Backspace),
            Self::Search => (CTRL, Key::F),
            Self::FocusInput => (CTRL, Key::L),
            Self::Stop => (Modifiers::NONE, Key::Escape),
            Self::Regenerate => (CTRL, Key::R),
            Self::EditLast => (CTRL, Key::ArrowUp),
            Self::Continue => (ALT, Key::Enter),
            Self::CopyLast => (CTRL_SHIFT, Key::C),
            Self::JumpToEnd => (CTRL, Key::End),
            Self::ToggleSetup => (CTRL_SHIFT, Key::S),
            Self::OpenPicker => (CTRL, Key::M),
            Self::OpenFile => (CTRL, Key::O),
            Self::ExportMarkdown => (CTRL, Key::S),
            Self::ShowChat => (PAGE, Key::Num1),
            Self::ShowExperts => (PAGE, Key::Num2),
            Self::ShowPerformance => (PAGE, Key::Num3),
            Self::ShowSettings => (CTRL, Key::Comma),
            Self::ShowLog => (PAGE, Key::Num4),
            Self::ToggleSidebar => (CTRL, Key::B),
            Self::ToggleExperts => (CTRL, Key::E),
            Self::NextMode => (Modifiers::NONE, Key::F6),
            Self::ToggleRecording => (Modifiers::NONE, Key::F9),
            Self::ToggleTheme => (CTRL_SHIFT, Key::L),
            Self::LargerText => (CTRL, Key::Plus),
            Self::SmallerText => (CTRL, Key::Minus),
            Self::UsualText => (CTRL, Key::Num0),
            Self::OpenPalette => (CTRL, Key::K),
            Self::ShowShortcuts => (Modifiers::NONE, Key::F1),
            Self::Quit => (CTRL, Key::Q),
            Self::PinChat
            | Self::UndoDelete
            | Self::ExportJson
            | Self::ImportChats
            | Self::LoadTiny
            | Self::OpenFolder
            | Self::ClearExperts => return None,
        })
    }

    /// Those that no browser has, Alt and a letter for the most part; Alt and Shift for pages and what is used seldom. Digits with
    /// Alt are tabs on Linux; the size of text is left to the browser's zoom.
    fn keys_of_pages(self) -> Option<(Modifiers, Key)> {
        Some(match self {
            Self::NewChat => (ALT, Key::N),
            Self::PreviousChat => (ALT, Key::ArrowUp),
            Self::NextChat => (ALT, Key::ArrowDown),
            Self::RenameChat => (Modifiers::NONE, Key::F2),
            Self::DeleteChat => (ALT_SHIFT, Key::Backspace),
            Self::Search => (ALT, Key::Q),
            Self::FocusInput => (ALT, Key::I),
            Self::Stop => (Modifiers::NONE, Key::Escape),
            Self::Regenerate => (ALT, Key::R),
            Self::EditLast => (CTRL, Key::ArrowUp),
            Self::Continue => (ALT, Key::Enter),
            Self::CopyLast => (ALT, Key::C),
            Self::JumpToEnd => (CTRL, Key::End),
            Self::ToggleSetup => (ALT, Key::P),
            Self::OpenPicker => (ALT, Key::M),
            Self::OpenFile => (ALT, Key::O),
            Self::ExportMarkdown => (CTRL, Key::S),
            Self::ShowChat => (ALT_SHIFT, Key::C),
            Self::ShowExperts => (ALT_SHIFT, Key::X),
            Self::ShowPerformance => (ALT_SHIFT, Key::P),
            Self::ShowSettings => (ALT, Key::Comma),
            Self::ShowLog => (ALT_SHIFT, Key::L),
            Self::ToggleSidebar => (ALT, Key::L),
            Self::ToggleExperts => (ALT, Key::X),
            Self::NextMode => (Modifiers::NONE, Key::F8),
            Self::ToggleRecording => (ALT_SHIFT, Key::R),
            Self::ToggleTheme => (ALT_SHIFT, Key::D),
            Self::OpenPalette => (ALT, Key::K),
            Self::ShowShortcuts => (ALT_SHIFT, Key::K),
            Self::PinChat
            | Self::UndoDelete
            | Self::ExportJson
            | Self::ImportChats
            | Self::LoadTiny
            | Self::OpenFolder
            | Self::ClearExperts
            | Self::LargerText
            | Self::SmallerText
            | Self::UsualText
            | Self::Quit => return None,
        })
    }

    /// The shortcut as people of this platform read it; empty: there is none.
    pub fn shortcut_text(self, ctx: &Context) -> String {
        self.shortcut().map_or_else(String::new, |s| ctx.format_shortcut(&s))
    }

    /// The tooltip of a button for it.
    pub fn tooltip(self, ctx: &Context) -> String {
        match self.shortcut_text(ctx) {
            s if s.is_empty() => self.explanation().to_owned(),
            s => format!("{} ({s})", self.explanation()),
        }
    }

    /// The first command whose shortcut was pressed in this frame; other keys are left to who else wants them. What was typed
    /// behind it is taken out of the input and added to `behind`: it is for what the command opens.
    pub fn pressed(ctx: &Context, enabled: &dyn Fn(Self) -> bool, behind: &mut Vec<Event>) -> Option<Self> {
        if !ctx.input(|i| i.events.iter().any(|e| matches!(e, Event::Key { pressed: true, .. }))) {
            return None;
        }
        // Longer shortcuts first: Ctrl+Shift+C is no Ctrl+C.
        let all = Self::here().filter(|&c| enabled(c));
        let mut all: Vec<(KeyboardShortcut, Self)> = all.filter_map(|c| Some((c.shortcut()?, c))).collect();
        if enabled(Self::LargerText) && Self::LargerText.shortcut().is_some() {
            // Plus without Shift, on keyboards where it is on the same key.
            all.push((KeyboardShortcut::new(CTRL, Key::Equals), Self::LargerText));
        }
        all.sort_by_key(|(s, _)| {
            std::cmp::Reverse([s.modifiers.shift, s.modifiers.alt, s.modifiers.command].map(u8::from).iter().sum::<u8>())
        });
        ctx.input_mut(|i| take(&mut i.events, &all, behind))
    }
}

/// Whether an event writes something, or may.
pub fn is_typing(event: &Event) -> bool {
    matches!(
        event,
        Event::Key { pressed: true, .. } | Event::Text(_) | Event::Ime(_) | Event::Paste(_) | Event::Copy | Event::Cut
    )
}

/// Takes the first shortcut out of the events of a frame, and what was typed behind it.
fn take(events: &mut Vec<Event>, all: &[(KeyboardShortcut, Command)], behind: &mut Vec<Event>) -> Option<Command> {
    let mut taken = None;
    // Some systems send the character of Alt+2 along with the key.
    let mut own_text = false;
    events.retain(|event| {
        let own = std::mem::take(&mut own_text) && matches!(event, Event::Text(text) if text.chars().count() == 1);
        if taken.is_some() {
            if is_typing(event) && !own {
                behind.push(event.clone());
            }
            return !is_typing(event);
        }
        let Event::Key { key, modifiers, pressed: true, .. } = event else { return true };
        let found = all.iter().find(|(s, _)| s.logical_key == *key && modifiers.matches_logically(s.modifiers));
        if let Some((shortcut, command)) = found {
            (taken, own_text) = (Some(*command), shortcut.modifiers.alt);
        }
        found.is_none()
    });
    taken
}

#[cfg(test)]
mod tests;
