//! How a judgement of a file reads.

use super::source::SOURCE;
use crate::policy::check;

#[test]
fn a_report_shows_file_line_and_caret() {
    let text =
        "\u{feff}[TUNNEL]\r\n\tTunnel1 = 10.0.0.9 \u{2013} 10.0.0.1 Clutser 1 # caf\u{e9}\r\n";
    let report = check("etc/policy.conf", text);
    assert_eq!(
        report.to_string(),
        "\
etc/policy.conf:2:12: error: reversed range: found the end 10.0.0.1 below the start 10.0.0.9, expected it above
    2 |  Tunnel1 = 10.0.0.9 \u{2013} 10.0.0.1 Clutser 1 # caf\u{e9}
      |            ^^^^^^^^^^^^^^^^^^^

etc/policy.conf:2:32: error: bad address: found `Clutser`, expected a gateway address, `Cluster <number>` or `AUTO`
    2 |  Tunnel1 = 10.0.0.9 \u{2013} 10.0.0.1 Clutser 1 # caf\u{e9}
      |                                ^^^^^^^
      = help: did you mean `Cluster`?

etc/policy.conf: 2 errors
"
    );
    assert_eq!(
        report.diagnostics[1].to_string(),
        "line 2, column 32: error: bad address: found `Clutser`, expected a gateway address, \
         `Cluster <number>` or `AUTO` (did you mean `Cluster`?)"
    );
    let one = report.diagnostics[0].render("p", text).to_string();
    assert!(one.contains("\n      |            ^^^^"), "{one}");
    assert!(report.into_policy().is_err());
}

#[test]
fn a_report_of_a_good_file_sums_it_up() {
    let report = check("p.conf", SOURCE);
    let text = report.to_string();
    assert!(
        text.ends_with(
            "\
p.conf: good: 2 clusters, 2 tunnels, 3 prefixes, 3 warnings
  heartbeat NONE (KEYED), defer time 1s, response time 500ms, order random, standby 0
  Cluster 1: 143.1.0.64 143.1.1.157
  Cluster 2: 143.1.0.63 143.1.0.65 143.1.0.66
  Tunnel 1: 143.1.0.24 \u{2013} 143.1.0.30 to Cluster 1, 3 prefixes
  Tunnel 2: 143.1.0.24 \u{2013} 143.1.0.30 to 143.1.1.160, 0 prefixes
"
        ),
        "{text}"
    );
    assert!(report.into_policy().is_ok());
}

#[test]
fn nothing_of_the_file_reaches_the_terminal_raw() {
    let noise = "\u{1b}[31m\u{7}\u{202e}\u{9b}";
    let text = format!("[TUNNEL]\n{noise}{}{noise} = x\n", "y".repeat(300));
    let shown = check("p", &text).to_string();
    let raw = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!shown.contains(raw), "{shown:?}");
    assert!(
        shown.contains("\u{fffd}[31m") && shown.contains("`\\u{1b}[31m"),
        "{shown}"
    );
    assert!(
        shown.lines().all(|line| line.chars().count() < 200),
        "{shown}"
    );
}
