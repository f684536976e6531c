//! Questions on a terminal: asked on stderr, answered on stdin.

use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

const BACKSPACE: [u8; 2] = [0x7f, 0x08];
const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;

/// A line; none where nobody can be asked.
pub fn line(question: &str) -> io::Result<Option<String>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    ask(question)?;
    let mut text = String::new();
    io::stdin().read_line(&mut text)?;
    Ok(Some(text.trim().to_owned()))
}

/// A line that does not show; none where nobody can be asked.
pub fn secret(question: &str) -> io::Result<Option<String>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    ask(question)?;
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    // Signals off too: one would leave the terminal without its echo.
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(&stdin, OptionalActions::Now, &silent)?;
    let answer = read_silently(&mut stdin.lock());
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    ask("\n")?;
    answer.map(Some)
}

fn ask(text: &str) -> io::Result<()> {
    let mut stderr = io::stderr();
    stderr.write_all(text.as_bytes())?;
    stderr.flush()
}

fn read_silently(stdin: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while stdin.read(&mut byte)? == 1 {
        match byte[0] {
            b'\n' | b'\r' | CTRL_D => break,
            CTRL_C => return Err(io::ErrorKind::Interrupted.into()),
            erased if BACKSPACE.contains(&erased) => {
                bytes.pop();
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_they_say() {
        let read = |keys: &[u8]| read_silently(&mut &*keys);
        assert_eq!(read(b"s3cret\nrest").unwrap(), "s3cret");
        assert_eq!(read(b"ab\x7fc").unwrap(), "ac");
        assert_eq!(read(b"ab\x03").unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
