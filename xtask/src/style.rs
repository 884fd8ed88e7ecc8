//! Colours and signs of what is printed; plain when the output is no terminal.

use std::io::IsTerminal;
use std::sync::OnceLock;

fn on() -> bool {
    static ON: OnceLock<bool> = OnceLock::new();
    *ON.get_or_init(|| std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
}

fn paint(code: &str, text: &str) -> String {
    if on() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

pub(crate) fn bold(text: &str) -> String {
    paint("1", text)
}

pub(crate) fn dim(text: &str) -> String {
    paint("2", text)
}

pub(crate) fn red(text: &str) -> String {
    paint("1;31", text)
}

pub(crate) fn green(text: &str) -> String {
    paint("1;32", text)
}

/// The name of a gateway in its own colour, the same as in the picture.
pub(crate) fn gateway(number: u8) -> String {
    let code = match number {
        1 => "1;34",
        2 => "1;33",
        _ => "1;36",
    };
    paint(code, &format!("gw{number}"))
}

/// Colours the names of gateways inside a sentence.
pub(crate) fn colour_gateways(text: &str) -> String {
    crate::lab::topology::GATEWAYS
        .into_iter()
        .fold(text.to_owned(), |text, n| {
            text.replace(&format!("gw{n}"), &gateway(n))
        })
}

/// Bits per second as a person says them.
pub(crate) fn rate(bits: f64) -> String {
    match bits {
        b if b >= 1e9 => format!("{:.2} Gbit/s", b / 1e9),
        b if b >= 1e6 => format!("{:.0} Mbit/s", b / 1e6),
        b => format!("{:.0} kbit/s", b / 1e3),
    }
}

/// Bytes as a person says them.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.0} kB", b / 1e3),
    }
}

/// `text` filled with spaces to `width` characters, whatever colours it has.
pub(crate) fn pad(text: &str, width: usize) -> String {
    let mut visible = 0;
    let mut escape = false;
    for c in text.chars() {
        match c {
            '\x1b' => escape = true,
            'm' if escape => escape = false,
            _ if !escape => visible += 1,
            _ => {}
        }
    }
    format!("{text}{}", " ".repeat(width.saturating_sub(visible)))
}
