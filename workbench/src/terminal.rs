//! What a command says: lines for people, or one JSON value for machines. Progress goes to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// For whom the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A person: lines, colours where the terminal has them, progress bars.
    Person,
    /// A program: one JSON value, last, on standard output.
    Machine,
}

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    audience: Audience,
    colours: bool,
}

/// A colour of the sixteen that every terminal has.
#[derive(Clone, Copy, Debug)]
pub enum Colour {
    /// It holds.
    Green,
    /// It does not.
    Red,
    /// Look here.
    Yellow,
    /// A name.
    Cyan,
    /// In passing.
    Dim,
    /// A heading.
    Bold,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Green => "32",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Cyan => "36",
            Self::Dim => "2",
            Self::Bold => "1",
        }
    }
}

impl Terminal {
    /// A terminal for `audience`; colours only for a person at a real terminal without `NO_COLOR`.
    pub fn new(audience: Audience) -> Self {
        let colours = audience == Audience::Person
            && io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none();
        Self { audience, colours }
    }

    /// For whom the output is.
    pub const fn audience(&self) -> Audience {
        self.audience
    }

    /// `text` in `colour`, if the terminal has colours.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colours {
            format!("\u{1b}[{}m{text}\u{1b}[0m", colour.code())
        } else {
            text.to_owned()
        }
    }

    /// A line for a person; nothing for a machine.
    pub fn line(&self, text: &str) -> io::Result<()> {
        match self.audience {
            Audience::Person => writeln!(io::stdout().lock(), "{text}"),
            Audience::Machine => Ok(()),
        }
    }

    /// The command's result: `text` for a person, `value` for a machine.
    pub fn result<T: Serialize>(&self, text: &str, value: &T) -> io::Result<()> {
        match self.audience {
            Audience::Person => writeln!(io::stdout().lock(), "{text}"),
            Audience::Machine => writeln!(io::stdout().lock(), "{}", serde_json::to_string(value)?),
        }?;
        io::stdout().lock().flush()
    }

    /// A progress bar over `total` steps or bytes; silent for a machine and off a terminal.
    pub fn progress(&self, total: u64, unit: Unit, label: &str) -> ProgressBar {
        let bar = ProgressBar::new(total);
        if self.audience == Audience::Machine {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = match unit {
            Unit::Steps => "{msg:24} {bar:32} {pos}/{len}",
            Unit::Bytes => "{msg:24} {bar:32} {bytes}/{total_bytes} {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(label.to_owned());
        bar
    }
}

/// What a progress bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Steps,
    /// Bytes.
    Bytes,
}
