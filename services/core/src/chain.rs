//! An error and its causes as text.

use std::fmt;

/// An error and its causes on one line. No stack trace: a logged error is an expected one.
#[derive(Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        for cause in std::iter::successors(self.0.source(), |cause| cause.source()) {
            let text = cause.to_string();
            // Some libraries repeat the cause at the end of their message.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
        }
        Ok(())
    }
}
