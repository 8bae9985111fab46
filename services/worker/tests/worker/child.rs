//! Child processes that die at a named point: this test program again, instructed by its environment.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output, Stdio};

use minishop_core::crash;

const AT: &str = "CRASH_AT";
const NTH: &str = "CRASH_NTH";

/// Reads an instruction of the parent.
#[expect(clippy::disallowed_methods, reason = "the parent says by the environment what to do")]
pub fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// In the child: arms the crash point that the parent names, if it names one.
pub fn arm() {
    if let Some(point) = told(AT) {
        crash::arm(&point, told(NTH).unwrap().parse().unwrap());
    }
}

/// Runs an ignored test of this program as a separate process.
async fn run(test: &'static str, env: &[(&str, String)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).stdin(Stdio::null());
    command.envs(env.iter().map(|(name, value)| (*name, value)));
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Runs a child that must die when it passes a point for the nth time.
pub async fn dies(test: &'static str, env: &[(&str, String)], point: &str, nth: u64) {
    let armed = [env, &[(AT, point.to_owned()), (NTH, nth.to_string())]].concat();
    let output = run(test, &armed).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{point}:{nth} was not reached: {said}");
    assert!(said.contains(&format!("crash point {point}")), "{said}");
}

/// Runs a child that must end well.
pub async fn ends_well(test: &'static str, env: &[(&str, String)]) {
    let output = run(test, env).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
