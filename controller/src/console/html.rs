//! Text inside HTML. Everything that is not written here in this program goes through [`Text`].

use std::fmt;

use protocol::time::UnixMs;

/// Text that is shown as it is, whatever it contains.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(pub &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => fmt::Write::write_char(f, other)?,
            }
        }
        Ok(())
    }
}

/// A point in time: machine-readable, and as `2026-11-22 21:13:57` in UTC for people.
#[derive(Clone, Copy, Debug)]
pub struct When(pub UnixMs);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_rfc3339();
        let shown = text.trim_end_matches('Z').replace('T', " ");
        write!(f, "<time datetime=\"{text}\">{shown}</time>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_devices_cannot_become_markup() {
        let evil = "<script>alert('\"&\"')</script>";
        let shown = Text(evil).to_string();
        assert!(!shown.contains(['<', '>', '"', '\'']), "{shown}");
        assert_eq!(Text("é & è").to_string(), "é &amp; è");
    }

    #[test]
    fn times_are_for_people_and_machines() {
        let shown = When(UnixMs(0)).to_string();
        assert_eq!(shown, "<time datetime=\"1970-01-01T00:00:00Z\">1970-01-01 00:00:00</time>");
    }
}
