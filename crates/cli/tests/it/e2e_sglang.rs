//! Prefill and decode pools of SGLang behind its own router, which is the real one; the servers are stand-ins.

use crate::sglang::{answered, lab, weighed};
use crate::support::setting;
use serde_json::json;

/// Two prefill servers and one for decode. The router tells each pair where it meets, at the bootstrap port of the
/// prefill server that it chose: had the plan told it another, every request would fail.
#[test]
#[ignore = "needs sglang-router; ci/test runs it"]
fn pools_meet_where_sglang_router_tells_them() {
    let router = setting("SCALEBEAM_E2E_SGLANG_ROUTER");
    let lab = lab(&format!(
        "params = {{ router_bin = \"{router}\" }}\n\
         [[deploy.pool]]\nrole = \"prefill\"\nworkers = 2\nplace = [\"a:0\", \"b:0\"]\n\
         [[deploy.pool]]\nrole = \"decode\"\nworkers = 1\nplace = [\"a:1\"]"
    ));
    let point = weighed(&lab);
    assert_eq!(answered(&point, "decode 2"), 24.0);
    let [one, other] = ["prefill 0", "prefill 1"].map(|name| answered(&point, name));
    assert_eq!((&one, &other), (&json!(12.0), &json!(12.0)), "they take turns");
}
