//! The life of keys on the command line.

use crate::cli::Desk;

#[test]
fn a_key_is_disabled_enabled_tagged_and_rotated_by_schedule() {
    let desk = Desk::new();
    desk.run("keys create --alias alias/orders").exits(0);
    desk.write("a", "plaintext");
    desk.run("encrypt a -p local:alias/orders").exits(0);
    desk.run("keys disable alias/orders").exits(0).says("disabled");
    desk.run("decrypt a.elk -o - -p local:alias/orders").exits(4).says("disabled").says("envelock keys enable KEY");
    desk.run("keys enable alias/orders").exits(0);
    assert_eq!(desk.run("decrypt a.elk -o - -p local:alias/orders").exits(0).out, b"plaintext");
    desk.run("keys tag alias/orders team=billing stage=prod").exits(0).says("has these tags from now on");
    desk.run("keys untag alias/orders stage").exits(0);
    assert_eq!(desk.run("keys tags alias/orders").exits(0).text(), "team=billing\n");
    assert!(desk.run("keys tags alias/orders --json").exits(0).text().contains("\"tag_value\": \"billing\""));
    desk.run("keys update-description alias/orders news").exits(0);
    let described = desk.run("keys describe alias/orders").exits(0).text().to_owned();
    for line in ["description  news", "tag          team=billing", "policy       none of its own", "grants       0"] {
        assert!(described.contains(line), "{line}: {described}");
    }
    assert_eq!(desk.run("keys rotation status alias/orders").exits(0).text(), "on demand only\n");
    desk.run("keys rotation enable alias/orders --days 89").exits(2).says("90 to 2,560");
    desk.run("keys rotation enable alias/orders --days 90").exits(0).says("every 90 days");
    assert!(desk.run("keys rotation status alias/orders").exits(0).text().starts_with("every 90 days, next at "));
    desk.run("keys rotation disable alias/orders").exits(0);
    desk.run("keys rotate alias/orders").exits(0);
    assert!(desk.run("keys rotation list alias/orders").exits(0).text().contains("on demand"));
}

#[test]
fn a_deletion_is_confirmed_and_taken_back() {
    let desk = Desk::new();
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("keys schedule-deletion alias/orders").exits(2).says("--yes");
    desk.run("keys schedule-deletion alias/orders --days 6 --yes").exits(2).says("7 to 30");
    desk.run("keys schedule-deletion alias/orders --days 7 --yes").exits(0).says("cancel-deletion");
    let described = desk.run("keys describe alias/orders").exits(0).text().to_owned();
    assert!(described.contains("PendingDeletion") && described.contains("deletion     at "), "{described}");
    desk.run("keys rotate alias/orders").exits(4).says("envelock keys cancel-deletion KEY");
    desk.run("keys schedule-deletion alias/orders --yes").exits(4);
    desk.run("keys cancel-deletion alias/orders").exits(0).says("Disabled");
    desk.run("keys cancel-deletion alias/orders").exits(4);
    let scheduled = desk.run("keys schedule-deletion alias/orders --yes --json");
    assert!(scheduled.exits(0).text().contains("\"pending_window_in_days\": 30"));
}
