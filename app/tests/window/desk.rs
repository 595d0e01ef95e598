//! A display without a screen, with a keyboard, for a program of ours.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, BufWriter},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use x11rb::{
    connection::Connection as _,
    protocol::{
        xproto::{
            AtomEnum, ClientMessageEvent, ConnectionExt as _, EventMask, ImageFormat, InputFocus, KEY_PRESS_EVENT,
            KEY_RELEASE_EVENT, MapState, Window,
        },
        xtest::ConnectionExt as _,
    },
    rust_connection::RustConnection,
};

const SIZE: [u16; 2] = [1280, 820];

/// Keysyms of keys that are no characters.
const NAMED: [(&str, u32); 5] =
    [("Return", 0xff0d), ("Escape", 0xff1b), ("Control_L", 0xffe3), ("Shift_L", 0xffe1), ("Alt_L", 0xffe9)];

/// A display, what is connected to it, and the program that runs on it.
pub struct Desk {
    server: Child,
    display: String,
    x: RustConnection,
    root: Window,
    program: Option<Child>,
    pictures: PathBuf,
}

impl Desk {
    /// Starts a display. `None`: Xvfb is not installed.
    pub fn open() -> Option<Self> {
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", &format!("{}x{}x24", SIZE[0], SIZE[1]), "-nolisten", "tcp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut number = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        let display = format!(":{}", number.trim());
        let (x, screen) = x11rb::connect(Some(&display)).unwrap();
        let root = x.setup().roots[screen].root;
        let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/window-session");
        fs::create_dir_all(&pictures).unwrap();
        Some(Self { server, display, x, root, program: None, pictures })
    }

    /// Starts the program.
    pub fn run(&mut self, data: &Path, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pleiad"));
        command.args(["--data-dir".as_ref(), data.as_os_str()]).args(args);
        command.env("DISPLAY", &self.display).env_remove("WAYLAND_DISPLAY").stdin(Stdio::null());
        // Of the drivers that tests use, this one can present in a window.
        if let Some(drivers) = std::env::var_os("VK_DRIVER_FILES") {
            let lavapipe: Vec<_> = std::env::split_paths(&drivers).filter(|p| p.to_string_lossy().contains("lvp")).collect();
            if !lavapipe.is_empty() {
                command.env("VK_DRIVER_FILES", std::env::join_paths(lavapipe).unwrap());
            }
        }
        self.program = Some(command.spawn().unwrap());
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn wait(&mut self, what: &str, patience: Duration, so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !so(self) {
            assert!(start.elapsed() < patience, "waited in vain for {what}");
            if let Some(status) = self.program.as_mut().and_then(|p| p.try_wait().unwrap()) {
                panic!("the program ended ({status}) while waiting for {what}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Some(window) = self.window() {
            // There is no window manager that would give it the keyboard.
            self.x.set_input_focus(InputFocus::PARENT, window, x11rb::CURRENT_TIME).unwrap();
            self.x.flush().unwrap();
        }
    }

    /// The program's window, once it is shown.
    pub fn window(&self) -> Option<Window> {
        let children = self.x.query_tree(self.root).ok()?.reply().ok()?.children;
        children.into_iter().find(|&w| {
            let shown = self
                .x
                .get_window_attributes(w)
                .ok()
                .and_then(|a| a.reply().ok())
                .is_some_and(|a| a.map_state == MapState::VIEWABLE);
            let class =
                self.x.get_property(false, w, AtomEnum::WM_CLASS, AtomEnum::STRING, 0, 64).ok().and_then(|p| p.reply().ok());
            shown && class.is_some_and(|c| String::from_utf8_lossy(&c.value).contains("pleiad"))
        })
    }

    /// Types a text.
    pub fn write(&self, text: &str) {
        for c in text.chars() {
            let (code, shift) = self.code(c as u32);
            let shift_code = self.code(0xffe1).0;
            if shift {
                self.fake(KEY_PRESS_EVENT, shift_code);
            }
            self.fake(KEY_PRESS_EVENT, code);
            self.fake(KEY_RELEASE_EVENT, code);
            if shift {
                self.fake(KEY_RELEASE_EVENT, shift_code);
            }
            std::thread::sleep(Duration::from_millis(12));
        }
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Presses a key.
    pub fn key(&self, name: &str) {
        self.chord(&[name]);
    }

    /// Presses keys together.
    pub fn chord(&self, names: &[&str]) {
        let codes: Vec<u8> = names.iter().map(|n| self.code(keysym(n)).0).collect();
        for &code in &codes {
            self.fake(KEY_PRESS_EVENT, code);
            std::thread::sleep(Duration::from_millis(20));
        }
        for &code in codes.iter().rev() {
            self.fake(KEY_RELEASE_EVENT, code);
        }
        std::thread::sleep(Duration::from_millis(150));
    }

    fn fake(&self, kind: u8, code: u8) {
        self.x.xtest_fake_input(kind, code, 0, self.root, 0, 0, 0).unwrap();
        self.x.flush().unwrap();
    }

    /// The key of a keysym, and whether it wants Shift.
    fn code(&self, keysym: u32) -> (u8, bool) {
        let (least, most) = (self.x.setup().min_keycode, self.x.setup().max_keycode);
        let map = self.x.get_keyboard_mapping(least, most - least + 1).unwrap().reply().unwrap();
        let width = usize::from(map.keysyms_per_keycode);
        let found = map.keysyms.chunks(width).enumerate().find_map(|(i, syms)| {
            let level = syms.iter().take(2).position(|&s| s == keysym)?;
            Some((least + i as u8, level == 1))
        });
        found.unwrap_or_else(|| panic!("the keyboard has no {keysym:#x}"))
    }

    /// What is on the screen, as RGB; kept as a file of that name.
    pub fn picture(&self, name: &str) -> Vec<u8> {
        let [width, height] = SIZE;
        let image = self.x.get_image(ImageFormat::Z_PIXMAP, self.root, 0, 0, width, height, !0).unwrap().reply().unwrap();
        let rgb: Vec<u8> = image.data.chunks_exact(4).flat_map(|p| [p[2], p[1], p[0]]).collect();
        let file = File::create(self.pictures.join(format!("{name}.png"))).unwrap();
        let mut encoder = png::Encoder::new(BufWriter::new(file), width.into(), height.into());
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&rgb).unwrap();
        let colours: std::collections::HashSet<_> = rgb.chunks_exact(3).collect();
        assert!(colours.len() > 16, "{name}: nothing is drawn");
        rgb
    }

    /// Asks the window to close, as its title bar would.
    pub fn close_window(&self) {
        let atom = |name: &[u8]| self.x.intern_atom(false, name).unwrap().reply().unwrap().atom;
        let (protocols, delete) = (atom(b"WM_PROTOCOLS"), atom(b"WM_DELETE_WINDOW"));
        let window = self.window().unwrap();
        let event = ClientMessageEvent::new(32, window, protocols, [delete, x11rb::CURRENT_TIME, 0, 0, 0]);
        self.x.send_event(false, window, EventMask::NO_EVENT, event).unwrap();
        self.x.flush().unwrap();
    }

    /// Whether the program ends, and well.
    pub fn ended(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        let mut program = self.program.take().unwrap();
        while start.elapsed() < patience {
            if let Some(status) = program.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = program.kill();
        let _ = program.wait();
        false
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for child in self.program.iter_mut().chain([&mut self.server]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The keysym of a key: those of ASCII are the characters themselves.
fn keysym(name: &str) -> u32 {
    match NAMED.iter().find(|(n, _)| *n == name) {
        Some((_, sym)) => *sym,
        None => name.chars().next().unwrap() as u32,
    }
}
