//! What the operator can do about a failure: `/status` and `attache check --online` show it.

use super::FetchError;

impl FetchError {
    /// What the operator can do about it.
    pub fn cure(&self) -> &'static str {
        match self {
            Self::Secret(_) => "write the secret where the configuration says it is, readable for attaché",
            Self::Signing => "check that the machine gives random numbers",
            Self::Unreachable => {
                "check the host and port, DNS, and whether a firewall or an `http_proxy` stands in between"
            }
            Self::Tls => {
                "name the authority of the provider's certificate in `ca_file`, or correct the host name"
            }
            Self::CertificateRefused => {
                "give the provider a `client_certificate` that it knows and that has not expired, with `client_auth = \
                 \"tls_client_auth\"` or \"self_signed_tls_client_auth\""
            }
            Self::Timeout | Self::Broken => {
                "the provider is slow or overloaded; attaché tries again by itself"
            }
            Self::TooLarge | Self::Malformed(_) => "check that the URL is that of an OAuth token endpoint",
            Self::Compressed => {
                "let the provider, and whatever stands in front of it, answer without compression where `Accept-Encoding` is \
                 `identity`"
            }
            Self::Redirected => "name the URL that it redirects to",
            Self::Status { status: 401 | 403, .. } => {
                "check `client_id`, `client_secret` and `client_auth`; a provider that does not decode Basic needs \
                 \"client_secret_basic_raw\""
            }
            Self::Status { status: 404 | 405 | 410, .. } => {
                "check `issuer` or `token_endpoint`: there is no token endpoint"
            }
            Self::Status { .. } => "look into the provider's own log; attaché tries again by itself",
            Self::Metadata(_) => {
                "write `issuer` exactly as the provider's metadata does, or give `token_endpoint`"
            }
            Self::Unverified(_) => {
                "compare `issuer` and `verify_audience` with what `attache whoami` shows of the token without `verify`; \
                 an opaque token cannot be verified"
            }
            Self::Installation(_) => {
                "check `client_id`, `installation_id`, `repositories` and `permissions` with the app's settings at GitHub"
            }
            Self::Introspection(_) => "check that `introspection_endpoint` is one (RFC 7662)",
            Self::Helper(_) => {
                "run the `command` by hand with the `environment` that it is given, and compare what it prints with `output`"
            }
            Self::Stale => {
                "whatever gives the token, a provider or the writer of a file, should give a new one in time"
            }
            Self::RefreshRefused { fallback: true } | Self::RefreshInDoubt { fallback: true } => {
                "the `fallback` grant takes over; to have refresh tokens again, put a new one where `refresh_token` says"
            }
            Self::RefreshRefused { .. } | Self::RefreshInDoubt { .. } => {
                "get a new refresh token from the provider and put it where `refresh_token` says; it is tried within \
                 seconds"
            }
            Self::Store(error) => error.cure(),
            Self::Quota => "raise `max_requests_per_hour`, or find out why so many token requests fail",
            Self::Blocked => "look at the file system that the credential's files are on",
            Self::Panicked => "report the bug",
            Self::OAuth { code, .. } => match code.meaning() {
                "invalid_client" => {
                    "check `client_id` and `client_secret`; the provider may want another `client_auth`, often \
                     \"client_secret_post\" or \"client_secret_basic_raw\""
                }
                "invalid_scope" => "ask for a `scope` that the provider knows and allows this client",
                "invalid_target" => "ask for an `audience` or `resource` that the provider knows",
                "unauthorized_client" | "access_denied" => {
                    "allow this client this grant in the provider's settings"
                }
                "unsupported_grant_type" => "the provider does not offer this `type` of credential",
                "invalid_request" => {
                    "the provider may want an `audience`, a `scope` or a further one of `parameters`"
                }
                _ => "look the code up in the provider's documentation",
            },
        }
    }
}
