//! The binary `pleiad`.

use std::process::ExitCode;

fn main() -> ExitCode {
    quiet_mesa();
    pleiad_app::cli::main()
}

/// Where there is no display, Mesa's layer that asks the compositor for the preferred GPU prints an error of its own about
/// it. Pleiad chooses by what the adapters are, so the layer is left out there.
fn quiet_mesa() {
    let headless = ["XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "DISPLAY"].iter().all(|v| std::env::var_os(v).is_none());
    if cfg!(target_os = "linux") && headless {
        // SAFETY: the program has one thread yet, so nobody reads the environment at the same time.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
