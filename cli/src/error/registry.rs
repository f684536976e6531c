//! What goes wrong between here and a registry; each has a code of its own.

/// Why an image could not be had or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryProblem {
    Unauthorized,
    Denied,
    NotFound,
    /// An image of no layout that holds a plugin.
    Layout,
    /// What is in it is no Wasm module.
    NotPlugin,
    Digest,
    Tls,
    Refused,
    Unreachable,
    RateLimit,
    Truncated,
    Failed,
    /// An answer that no registry gives.
    Protocol,
    Hostile,
    TooLarge,
    /// Larger than the registry, or a proxy before it, takes.
    Limit,
    /// The registry refuses it by an error of its own.
    Rejected,
    Credentials,
}

impl RegistryProblem {
    pub fn code(self) -> &'static str {
        match self {
            Self::Unauthorized => "registry_unauthorized",
            Self::Denied => "registry_denied",
            Self::NotFound => "registry_not_found",
            Self::Layout => "registry_wrong_layout",
            Self::NotPlugin => "registry_not_plugin",
            Self::Digest => "registry_digest_mismatch",
            Self::Tls => "registry_tls",
            Self::Refused => "registry_refused",
            Self::Unreachable => "registry_unreachable",
            Self::RateLimit => "registry_rate_limit",
            Self::Truncated => "registry_truncated",
            Self::Failed => "registry_failed",
            Self::Protocol => "registry_protocol",
            Self::Hostile => "registry_hostile",
            Self::TooLarge => "registry_too_large",
            Self::Limit => "registry_limit",
            Self::Rejected => "registry_rejected",
            Self::Credentials => "registry_credentials",
        }
    }

    /// What happened, after the name of the image.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Unauthorized => "the registry wants a login that it accepts",
            Self::Denied => "the registry denies you that",
            Self::NotFound => "the registry has no such image",
            Self::Layout => "the image has no layout that holds a plugin",
            Self::NotPlugin => "what the image holds is not a plugin",
            Self::Digest => "the bytes are not what their digest says",
            Self::Tls => "no TLS connection with the registry came about",
            Self::Refused => "the registry refuses connections",
            Self::Unreachable => "the registry cannot be reached",
            Self::RateLimit => "the registry limits how often it is asked",
            Self::Truncated => "the transfer broke off",
            Self::Failed => "the registry failed",
            Self::Protocol => "the registry's answer was not understood",
            Self::Hostile => "the image is made to do harm and was not unpacked",
            Self::TooLarge => "it is larger than the mesh takes",
            Self::Limit => "it is larger than the registry takes",
            Self::Rejected => "the registry rejected the request",
            Self::Credentials => "the place where logins are kept cannot be used",
        }
    }

    pub(super) fn hint(self, registry: &str) -> String {
        let hint = match self {
            Self::Unauthorized => {
                return format!(
                    "`spctl login {registry}` (or docker, podman login), or set SPCTL_REGISTRY_USERNAME and SPCTL_REGISTRY_PASSWORD"
                );
            }
            Self::Denied => {
                "ask for the right to this repository, or name one that is yours; some registries want it created first"
            }
            Self::NotFound => {
                return format!(
                    "check repository and tag; a private image may look as if it did not exist: `spctl login {registry}`"
                );
            }
            Self::Layout => "push the module itself with `spctl push`, which uses the layout that every Istio loads",
            Self::NotPlugin => "`spctl inspect FILE` says what a file is; a plugin is a core Wasm module",
            Self::Digest => {
                "nothing was kept: try again, and if it stays, do not trust this registry or what is between"
            }
            Self::Tls => {
                "name the CA that signed its certificate with `--registry-ca FILE`; a registry without TLS: `--registry-plain-http`"
            }
            Self::Refused => "check host and port, and that it runs",
            Self::Unreachable => "check the name and the network; HTTPS_PROXY and NO_PROXY are heeded",
            Self::RateLimit => return format!("wait and try again; with `spctl login {registry}` more is allowed"),
            Self::Truncated => "run it again: blobs that arrived are not sent again",
            Self::Failed => "try again later; its own log says more",
            Self::Protocol => "is there a registry at that address, and not another service or a proxy's login page?",
            Self::Hostile => "do not load it anywhere; tell whoever published it",
            Self::TooLarge => {
                "Istio and Envoy Gateway read 256 MiB at most: build it in release mode, without debug sections"
            }
            Self::Limit => {
                "raise the limit of the registry, or of the proxy before it (nginx: `client_max_body_size`), or build in release mode"
            }
            Self::Rejected => "its own words say why: check the repository's name, and what this registry allows",
            Self::Credentials => "mend or remove the file that is named; a credential helper must be on PATH",
        };
        hint.to_owned()
    }
}
