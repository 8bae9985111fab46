//! The servers that `infra/test` has started.

/// Returns an address, such as that in `MINISHOP_TEST_POSTGRES`. Without it a test fails, because a gap would look like a pass;
/// `MINISHOP_TEST_ALLOW_MISSING=1` permits `None`.
pub fn server(variable: &str) -> Option<String> {
    let server = read(variable);
    assert!(
        server.is_some() || read("MINISHOP_TEST_ALLOW_MISSING").is_some_and(|value| value == "1"),
        "{variable} is not set: run infra/test, point it to a server, or set MINISHOP_TEST_ALLOW_MISSING=1 to go without"
    );
    server
}

/// Returns an address without which a test cannot run.
pub fn required(variable: &str) -> String {
    read(variable).unwrap_or_else(|| panic!("{variable} is not set; run infra/test"))
}

#[expect(clippy::disallowed_methods, reason = "names the servers for tests")]
fn read(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}
