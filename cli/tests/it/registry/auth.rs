//! Who is let in: basic authentication, TLS with a private CA, and where logins
//! are looked for and kept.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::server::Server;
use super::{istio_loads_with, plugin};
use crate::common::{Ended, Spctl, tool};

pub(super) const USER: &str = "ada";
pub(super) const PASSWORD: &str = "s3cret-pass";

/// A registry that wants USER's PASSWORD.
fn with_htpasswd() -> Option<Server> {
    with_realm("https://registry.test/")
}

fn with_realm(realm: &str) -> Option<Server> {
    let htpasswd = tool("SPCTL_TEST_HTPASSWD", "htpasswd")?;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    let made = Command::new(htpasswd).args(["-Bbn", USER, PASSWORD]).output().unwrap();
    std::fs::write(&file, made.stdout).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: \"{realm}\", path: {}}}}}", file.display());
    let mut server = Server::start_with("", &auth)?;
    server.kept = Some(dir);
    Some(server)
}

/// spctl with files of its own for everything that holds logins.
pub(super) fn run(spctl: &Spctl, args: &[&str], environment: &[(&str, &str)], stdin: &str) -> Ended {
    let mut command = spctl.command(args);
    command
        .env("HOME", spctl.home.path())
        .env("DOCKER_CONFIG", spctl.home.path().join("docker"))
        .env_remove("REGISTRY_AUTH_FILE")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("XDG_CONFIG_HOME")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let ended = Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(!format!("{}{}", ended.stdout, ended.stderr).contains(PASSWORD), "a secret shows: {}", ended.stderr);
    ended
}

#[track_caller]
pub(super) fn refused(ended: &Ended, code: &str) {
    assert!(ended.stdout.contains(&format!("\"code\":\"{code}\"")), "{code}: {}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, 40);
}

#[track_caller]
pub(super) fn done(ended: &Ended) -> String {
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    ended.stdout.clone()
}

#[test]
fn basic_authentication_with_logins_from_everywhere() {
    let Some(server) = with_htpasswd() else { return };
    let spctl = Spctl::new();
    let module = plugin(&spctl, 11, 100);
    let registry = server.address.to_string();
    let image = server.image("auth/p:1");
    let push = ["push", &image, "--plugin", module.to_str().unwrap(), "-o", "json"];
    let pull = ["pull", &image, "-f", "p.wasm", "-o", "json"];
    let stranger = run(&spctl, &push, &[], "");
    refused(&stranger, "registry_unauthorized");
    assert!(stranger.stdout.contains(&format!("spctl login {registry}")), "{}", stranger.stdout);

    // A wrong login is not kept.
    let login = ["login", &registry, "--username", USER, "--password-stdin", "-o", "json"];
    refused(&run(&spctl, &login, &[], "wrong\n"), "registry_unauthorized");
    let file = spctl.home.path().join("docker/config.json");
    assert!(!file.exists());

    // The environment.
    let environment = [("SPCTL_REGISTRY_USERNAME", USER), ("SPCTL_REGISTRY_PASSWORD", PASSWORD)];
    done(&run(&spctl, &push, &environment, ""));
    refused(
        &run(&spctl, &pull, &[&environment[..], &[("SPCTL_REGISTRY", "other.io")]].concat(), ""),
        "registry_unauthorized",
    );
    done(&run(&spctl, &pull, &[&environment[..], &[("SPCTL_REGISTRY", &registry)]].concat(), ""));

    // Docker's file, with what else is in it.
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, r#"{"auths": {"r.io": {"auth": "YTpi"}}, "HttpHeaders": {"x": "y"}}"#).unwrap();
    done(&run(&spctl, &login, &[], &format!("{PASSWORD}\n")));
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["auths"][&registry]["auth"], STANDARD.encode(format!("{USER}:{PASSWORD}")));
    assert_eq!((&kept["auths"]["r.io"]["auth"], &kept["HttpHeaders"]["x"]), (&"YTpi".into(), &"y".into()));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    done(&run(&spctl, &pull, &[], ""));
    // What Docker's file says, Istio's pull secret says too.
    if let Some(istio) = istio_loads_with(&image, &[("DOCKER_CONFIG_JSON", &kept.to_string())]) {
        assert_eq!(istio["ok"], true, "{istio}");
    }
    if let Some(skopeo) = tool("SPCTL_TEST_SKOPEO", "skopeo") {
        let mut inspect = Command::new(skopeo);
        let inspect = inspect.args(["inspect", "--tls-verify=false", "--authfile"]).arg(&file);
        assert!(inspect.arg(format!("docker://{image}")).output().unwrap().status.success());
    }
    let forgotten = done(&run(&spctl, &["logout", &registry, "-o", "json"], &[], ""));
    assert!(forgotten.contains("\"forgotten\":true"), "{forgotten}");
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((&kept["auths"][&registry], &kept["auths"]["r.io"]["auth"]), (&Value::Null, &"YTpi".into()));
    refused(&run(&spctl, &pull, &[], ""), "registry_unauthorized");
    let again = done(&run(&spctl, &["logout", &registry, "-o", "json"], &[], ""));
    assert!(again.contains("\"forgotten\":false"), "{again}");

    // Podman's file, for a single repository.
    let podman = spctl.home.path().join(".config/containers");
    std::fs::create_dir_all(&podman).unwrap();
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let login = json!({"auths": {format!("{registry}/auth"): {"auth": auth}}});
    std::fs::write(podman.join("auth.json"), login.to_string()).unwrap();
    done(&run(&spctl, &pull, &[], ""));
    std::fs::rename(podman.join("auth.json"), spctl.home.path().join("mine.json")).unwrap();
    let named = spctl.home.path().join("mine.json");
    done(&run(&spctl, &pull, &[("REGISTRY_AUTH_FILE", named.to_str().unwrap())], ""));

    // A damaged file is an error that names it.
    std::fs::write(&file, "{").unwrap();
    let damaged = run(&spctl, &pull, &[], "");
    refused(&damaged, "registry_credentials");
    assert!(damaged.stdout.contains("docker/config.json"), "{}", damaged.stdout);
}

/// Istio's guard looks at the realm of basic authentication too.
#[test]
fn a_realm_that_istio_refuses_is_warned_of() {
    for (realm, refused) in [("Registry Realm", true), ("https://registry.test/", false)] {
        let Some(server) = with_realm(realm) else { return };
        let spctl = Spctl::new();
        let module = plugin(&spctl, 15, 100);
        let image = server.image("auth/p:1");
        let login = [("SPCTL_REGISTRY_USERNAME", USER), ("SPCTL_REGISTRY_PASSWORD", PASSWORD)];
        let push = ["push", &image, "--plugin", module.to_str().unwrap(), "-o", "json"];
        let pushed: Value = serde_json::from_str(&done(&run(&spctl, &push, &login, ""))).unwrap();
        let warnings = pushed["warnings"].as_array().unwrap();
        assert_eq!(
            warnings.iter().any(|w| w.as_str().unwrap().contains("unsafe bearer realm")),
            refused,
            "{warnings:?}"
        );
        let inspected: Value =
            serde_json::from_str(&done(&run(&spctl, &["inspect", &image, "-o", "json"], &login, ""))).unwrap();
        for host in inspected["data"]["loads_in"].as_array().unwrap() {
            assert_eq!(host["ok"], !(refused && host["host"] == "istio"), "{host}");
        }
        let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let secret = json!({"auths": {server.address.to_string(): {"auth": auth}}}).to_string();
        if let Some(istio) = istio_loads_with(&image, &[("DOCKER_CONFIG_JSON", &secret)]) {
            assert_eq!(istio["ok"], !refused, "{realm}: {istio}");
            assert_eq!(istio["error"].to_string().contains("rejected unsafe bearer realm"), refused, "{istio}");
        }
    }
}

#[test]
fn a_credential_helper_keeps_the_login() {
    let Some(server) = with_htpasswd() else { return };
    let spctl = Spctl::new();
    let module = plugin(&spctl, 12, 100);
    let registry = server.address.to_string();
    let image = server.image("auth/p:1");
    // A helper as Docker's are: a verb, JSON or the server's name on stdin.
    let helper = spctl.file(
        "docker-credential-test",
        "#!/bin/sh\nkept=$(dirname \"$0\")/kept\ncase $1 in\nstore) cat >\"$kept\" ;;\nerase) [ ! -f \"$(dirname \"$0\")/locked\" ] || { echo keychain is locked: $(cat); exit 1; }\n\
         [ -f \"$kept\" ] || { echo credentials not found in native keychain; exit 1; }; rm \"$kept\" ;;\n\
                 get) [ -f \"$kept\" ] || { echo credentials not found in native keychain; exit 1; }; cat \"$kept\" ;;\nesac\n",
    );
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", spctl.home.path().display(), std::env::var("PATH").unwrap());
    let path = [("PATH", path.as_str())];
    let docker = spctl.home.path().join("docker");
    std::fs::create_dir_all(&docker).unwrap();
    std::fs::write(docker.join("config.json"), r#"{"credsStore": "test"}"#).unwrap();
    let push = ["push", &image, "--plugin", module.to_str().unwrap(), "-o", "json"];
    refused(&run(&spctl, &push, &path, ""), "registry_unauthorized");
    let login = ["login", &registry, "--username", USER, "--password-stdin", "-o", "json"];
    let kept = done(&run(&spctl, &login, &path, PASSWORD));
    assert!(kept.contains("\"kept\":\"helper\""), "{kept}");
    assert!(!std::fs::read_to_string(docker.join("config.json")).unwrap().contains("auths"));
    done(&run(&spctl, &push, &path, ""));
    done(&run(&spctl, &["logout", &registry], &path, ""));
    assert!(!spctl.home.path().join("kept").exists());
    // Nothing to forget is no error, a helper that fails is one.
    let nothing = done(&run(&spctl, &["logout", &registry, "-o", "json"], &path, ""));
    assert!(nothing.contains("\"forgotten\":false"), "{nothing}");
    done(&run(&spctl, &login, &path, PASSWORD));
    std::fs::write(spctl.home.path().join("locked"), "").unwrap();
    let locked = run(&spctl, &["logout", &registry, "-o", "json"], &path, "");
    refused(&locked, "registry_credentials");
    assert!(locked.stdout.contains("docker-credential-test erase"), "{}", locked.stdout);
    // A helper that is not there cannot keep a login.
    let missing = run(&spctl, &login, &[], PASSWORD);
    refused(&missing, "registry_credentials");
    assert!(missing.stdout.contains("PATH"), "{}", missing.stdout);
    // For pull: told, and tried without a login.
    let without = run(&spctl, &["pull", &image, "-f", "x.wasm"], &[], "");
    assert!(without.stderr.contains("credential helper"), "{}", without.stderr);
    assert_eq!(without.code, 40);
}

/// The file that Podman's variable names is the one that is written, too.
#[test]
fn the_file_that_is_named_is_written_and_read() {
    let Some(server) = with_htpasswd() else { return };
    let spctl = Spctl::new();
    let module = plugin(&spctl, 16, 100);
    let registry = server.address.to_string();
    let image = server.image("auth/p:1");
    let named = spctl.home.path().join("named.json");
    let file = [("REGISTRY_AUTH_FILE", named.to_str().unwrap())];
    let login = ["login", &registry, "--username", USER, "--password-stdin", "-o", "json"];
    let kept = done(&run(&spctl, &login, &file, PASSWORD));
    assert!(kept.contains("named.json") && named.exists(), "{kept}");
    assert!(!spctl.home.path().join("docker/config.json").exists());
    done(&run(&spctl, &["push", &image, "--plugin", module.to_str().unwrap()], &file, ""));
    done(&run(&spctl, &["pull", &image, "-f", "p.wasm"], &file, ""));
    let forgotten = done(&run(&spctl, &["logout", &registry, "-o", "json"], &file, ""));
    assert!(forgotten.contains("\"forgotten\":true"), "{forgotten}");
    refused(&run(&spctl, &["pull", &image, "-f", "p.wasm", "-o", "json"], &file, ""), "registry_unauthorized");
}

#[test]
fn a_registry_that_asks_for_no_login_says_nothing_about_one() {
    let Some(server) = Server::start() else { return };
    let spctl = Spctl::new();
    let registry = server.address.to_string();
    let login = ["login", &registry, "--username", USER, "--password-stdin", "-o", "json"];
    let kept = done(&run(&spctl, &login, &[], PASSWORD));
    assert!(kept.contains("asks nobody for a login"), "{kept}");
}

/// A CA and a certificate of its for 127.0.0.1, as PEM files.
fn authority(dir: &Path) -> (std::path::PathBuf, std::path::PathBuf, std::path::PathBuf) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let put = |name: &str, text: String| {
        std::fs::write(dir.join(name), text).unwrap();
        dir.join(name)
    };
    (put("ca.crt", ca.pem()), put("server.crt", certificate.pem()), put("server.key", key.serialize_pem()))
}

#[test]
fn tls_with_a_private_ca() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, certificate, key) = authority(dir.path());
    let tls = format!("  tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
    let Some(server) = Server::start_with(&tls, "") else { return };
    let spctl = Spctl::new();
    let module = plugin(&spctl, 13, 100);
    let image = server.image("tls/p:1");
    let push = ["push", &image, "--plugin", module.to_str().unwrap(), "-o", "json"];
    let stranger = run(&spctl, &push, &[], "");
    refused(&stranger, "registry_tls");
    assert!(stranger.stdout.contains("--registry-ca"), "{}", stranger.stdout);
    // Never without TLS where it was spoken, whatever its certificate.
    refused(&run(&spctl, &[&push[..], &["--registry-plain-http"]].concat(), &[], ""), "registry_protocol");
    let ca = ca.to_str().unwrap();
    let pushed = done(&run(&spctl, &[&push[..], &["--registry-ca", ca]].concat(), &[], ""));
    done(&run(&spctl, &["pull", &image, "-f", "p.wasm"], &[("SPCTL_REGISTRY_CA", ca)], ""));
    done(&run(&spctl, &["inspect", &image], &[("SSL_CERT_FILE", ca)], ""));
    // Where Podman keeps it for one registry.
    let podman = spctl.home.path().join(format!(".config/containers/certs.d/{}", server.address));
    std::fs::create_dir_all(&podman).unwrap();
    std::fs::copy(ca, podman.join("ca.crt")).unwrap();
    done(&run(&spctl, &["pull", &image, "-f", "p.wasm"], &[], ""));
    let page = spctl.file("no.crt", "not a certificate");
    let wrong = run(&spctl, &[&push[..], &["--registry-ca", page.to_str().unwrap()]].concat(), &[], "");
    refused(&wrong, "registry_tls");
    if let Some(skopeo) = tool("SPCTL_TEST_SKOPEO", "skopeo") {
        let raw = Command::new(skopeo)
            .args(["inspect", "--raw", "--cert-dir", podman.to_str().unwrap(), &format!("docker://{image}")])
            .output()
            .unwrap();
        let digest = super::server::digest(&raw.stdout);
        assert!(pushed.contains(digest.trim_start_matches("sha256:")), "{}", String::from_utf8_lossy(&raw.stderr));
    }
    if let Some(istio) = istio_loads_with(&image, &[("INSECURE", "1")]) {
        assert_eq!(istio["ok"], true, "{istio}");
    }
}
