//! Clients in other languages, run as separate programs.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use minishop_testkit::fresh_name;

use super::client::Topic;

fn run(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

pub fn kcat(broker: &str) {
    let topic = Topic::new(broker, 2);
    let kcat = |arguments: &[&str], input: &str| run(Command::new("kcat").args(["-b", broker]).args(arguments), input);
    let listed = kcat(&["-L", "-t", &topic.name], "");
    assert!(listed.contains(&format!("topic \"{}\" with 2 partitions", topic.name)), "{listed}");
    let input = "k1:v1\nk2:v2\nk3:v3\n";
    kcat(&["-P", "-t", &topic.name, "-K:", "-H", "name=value", "-H", "bare"], input);
    kcat(&["-P", "-t", &topic.name, "-K:", "-z", "lz4", "-X", "enable.idempotence=true"], "k4:v4\n");

    let read = kcat(&["-C", "-t", &topic.name, "-e", "-q", "-f", "%k=%s %h\n"], "");
    let mut lines: Vec<&str> = read.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["k1=v1 name=value,bare=NULL", "k2=v2 name=value,bare=NULL", "k3=v3 name=value,bare=NULL", "k4=v4"]);

    let group = fresh_name("kcat");
    let read = kcat(&["-G", &group, "-q", "-c", "4", "-X", "auto.offset.reset=earliest", &topic.name], "");
    assert_eq!(read.lines().count(), 4);
    let offset = kcat(&["-Q", "-t", &format!("{}:0:-1", topic.name)], "");
    assert!(offset.contains("[0] offset"), "{offset}");
}

/// The Go module proxy, or the module cache, provides what go.sum names.
pub fn franz(broker: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/franz");
    let said = run(Command::new("go").args(["run", ".", broker, &fresh_name("franz")]).current_dir(dir), "");
    assert!(said.trim_end().ends_with("ok"), "{said}");
}
