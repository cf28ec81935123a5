//! Key files that lie open. (Keystores: `cli_keystore`.)

use super::{Desk, KEY};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_raw_key_file_that_others_may_read_is_refused() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    let key = desk.write("k.key", KEY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    desk.run("encrypt a -p raw:file=k.key").exits(6).says("k.key").says("chmod 600");
    assert!(!desk.path("a.elk").exists());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    desk.run("encrypt a -p raw:file=k.key").exits(0);
}
