/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sources of credentials, against programs, files, and a server that is metadata service
 * and token service in one.  Time stands still unless a test moves it.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <curl/curl.h>

#include "credentials_source.h"
#include "testing.h"

#define SECRET	"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
#define NOW	1767225600LL		/* 2026-01-01T00:00:00Z */
/* More than a line of inih has. */
#define TEN	"0123456789"
#define LONG	TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN
#define LATER	"2026-01-01T01:00:00Z"

static char dir[] = "/tmp/qc2-credentials.XXXXXX";
static _Atomic int64_t now = NOW;

static int64_t test_now(void)
{
	return now;
}

/* --- the server ---------------------------------------------------------------- */

struct answer {
	const char *request;	/* how the request begins; NULL ends the list */
	const char *status;	/* NULL: there is no answer, until the client goes */
	const char *body;
};

static struct {
	int listener;
	pthread_t thread;
	char url[64];
	pthread_mutex_t lock;		/* of what follows */
	pthread_cond_t change;
	const struct answer *answers;	/* the first that fits is taken */
	unsigned int requests;
	bool hold;			/* answers wait */
	char seen[8][8192];		/* requests with their bodies */
} server = { .lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER };

static bool read_request(int fd, char *buf, size_t size)
{
	const char *length, *end;
	size_t len = 0, want = 0;
	ssize_t n;

	do {
		n = recv(fd, buf + len, size - 1 - len, 0);
		if (n <= 0)
			return false;
		len += n;
		buf[len] = '\0';
		end = strstr(buf, "\r\n\r\n");
		length = strcasestr(buf, "\r\nContent-Length: ");
		want = end ? (size_t)(end + 4 - buf) + (length ? atoi(length + 18) : 0) : size;
	} while (len < want);
	return true;
}

static void answer(int fd, const char *request, const struct answer *a)
{
	char *text;
	int len;

	while (a->request && strncmp(request, a->request, strlen(a->request)))
		a++;
	if (a->request && !a->status) {
		char c;

		while (recv(fd, &c, 1, 0) > 0)
			;
		return;
	}
	len = asprintf(&text, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n%s",
		       a->request ? a->status : "404 Not Found",
		       a->request ? strlen(a->body) : 0,
		       a->request && *a->status == '3' ? "Location: /elsewhere\r\n" : "",
		       a->request ? a->body : "");
	assert(len > 0);
	for (int sent = 0; sent < len; ) {
		ssize_t n = send(fd, text + sent, len - sent, MSG_NOSIGNAL);

		if (n <= 0)
			break;
		sent += n;
	}
	free(text);
}

static void *serve(void *arg)
{
	static char buf[sizeof(server.seen[0])];
	const struct answer *answers;
	int fd;

	while ((fd = accept(server.listener, NULL, NULL)) >= 0) {
		if (read_request(fd, buf, sizeof(buf))) {
			pthread_mutex_lock(&server.lock);
			memmove(server.seen[1], server.seen[0], sizeof(server.seen) - sizeof(buf));
			memcpy(server.seen[0], buf, sizeof(buf));
			server.requests++;
			pthread_cond_broadcast(&server.change);
			while (server.hold)
				pthread_cond_wait(&server.change, &server.lock);
			answers = server.answers;
			pthread_mutex_unlock(&server.lock);
			answer(fd, buf, answers);
		}
		close(fd);
	}
	return NULL;
}

static void expect(const struct answer *answers)
{
	pthread_mutex_lock(&server.lock);
	server.answers = answers;
	server.requests = 0;
	memset(server.seen, 0, sizeof(server.seen));
	pthread_mutex_unlock(&server.lock);
}

/* --- files and sources ------------------------------------------------------------ */

static const char *file(const char *name, const char *text)
{
	static char path[4][96];
	static unsigned int next;
	char *p = path[next++ % 4];
	FILE *f;

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	f = fopen(p, "w");
	assert_non_null(f);
	assert_int_equal(fchmod(fileno(f), 0600), 0);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	return p;
}

static int clear(void **state)
{
	static const char *const variables[] = {
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_ENDPOINT_URL_STS", "AWS_CA_BUNDLE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"AWS_EC2_METADATA_DISABLED", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
		"AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN",
	};

	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
		unsetenv(variables[i]);
	setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
	setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
	/* Whoever asks directly does not ask this. */
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("no_proxy", "", 1);
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url, 1);
	now = NOW;
	return 0;
}

static struct qc2_credentials_config config(enum qc2_credentials_kind kind)
{
	return (struct qc2_credentials_config){
		.kind = kind, .now = test_now, .container_base = server.url,
		.time_limit_ms = 60000,
	};
}

/* One refresh of a new source; the keys, or NULL with @err. */
static struct qc2_keys *once(const struct qc2_credentials_config *cfg, int *ret,
			     struct qc2_err *err)
{
	struct qc2_credentials *creds = qc2_credentials_new(cfg);
	struct qc2_keys *keys;

	assert_non_null(creds);
	err->msg[0] = '\0';
	assert_true(qc2_credentials_due(creds));
	assert_null(qc2_credentials_get(creds));
	*ret = qc2_credentials_refresh(creds, err);
	keys = qc2_credentials_get(creds);
	assert_int_equal(!keys, !!*ret);
	qc2_credentials_free(creds);
	return keys;
}

static void gives_cfg(const struct qc2_credentials_config *cfg, const char *id,
		      const char *secret, const char *token, int64_t expires)
{
	struct qc2_keys *keys;
	struct qc2_err err;
	int ret;

	keys = once(cfg, &ret, &err);
	assert_ok(ret, err);
	if (id)
		assert_string_equal(keys->id, id);
	if (secret)
		assert_string_equal(keys->secret, secret);
	assert_int_equal(!keys->token, !token);
	if (token)
		assert_string_equal(keys->token, token);
	assert_int_equal(keys->expires, expires);
	qc2_keys_unref(keys);
}

static void gives(enum qc2_credentials_kind kind, const char *id, const char *secret,
		  const char *token, int64_t expires)
{
	struct qc2_credentials_config cfg = config(kind);

	gives_cfg(&cfg, id, secret, token, expires);
}

static void fails_cfg(const struct qc2_credentials_config *cfg, int ret, const char *part)
{
	struct qc2_err err;
	int got;

	once(cfg, &got, &err);
	if (got != ret)
		fail_msg("returned %d, not %d: %s", got, ret, err.msg);
	assert_in(err.msg, "credentials: ");
	assert_in(err.msg, part);
	assert_not_in(err.msg, SECRET);
}

static void fails(enum qc2_credentials_kind kind, int ret, const char *part)
{
	struct qc2_credentials_config cfg = config(kind);

	fails_cfg(&cfg, ret, part);
}

/* --- what is at hand ----------------------------------------------------------------- */

static void test_environment(void **state)
{
	struct qc2_credentials_config azure = config(QC2_CREDENTIALS_ENV);

	fails(QC2_CREDENTIALS_ENV, -EACCES, "AWS_ACCESS_KEY_ID is not set");
	setenv("AWS_ACCESS_KEY_ID", "AKID", 1);
	fails(QC2_CREDENTIALS_ENV, -EACCES, "no secret access key");
	setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
	gives(QC2_CREDENTIALS_ENV, "AKID", SECRET, NULL, 0);
	setenv("AWS_SESSION_TOKEN", "tok", 1);
	gives(QC2_CREDENTIALS_ENV, "AKID", SECRET, "tok", 0);
	setenv("AWS_SESSION_TOKEN", SECRET "\r\nX-Evil: 1", 1);
	fails(QC2_CREDENTIALS_ENV, -EACCES, "control character");

	azure.account = "acct1";
	fails_cfg(&azure, -EACCES, "not this account");
	setenv("AZURE_STORAGE_ACCOUNT", "acct1", 1);
	fails_cfg(&azure, -EACCES, "AZURE_STORAGE_SAS_TOKEN");
	setenv("AZURE_STORAGE_SAS_TOKEN", "?sig=x", 1);
	gives_cfg(&azure, NULL, NULL, "sig=x", 0);
	setenv("AZURE_STORAGE_KEY", "Zm9v", 1);
	gives_cfg(&azure, NULL, "Zm9v", NULL, 0);
}

static void test_profile(void **state)
{
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_PROFILE);

	fails_cfg(&cfg, -EACCES, "\"default\": there is none");
	setenv("AWS_SHARED_CREDENTIALS_FILE", file("credentials",
		"# mine\n[default]\naws_access_key_id=ID0\naws_secret_access_key = " SECRET "\n"
		"[long] # comment\naws_access_key_id = ID1\naws_secret_access_key = s1\n"
		"aws_session_token = " LONG "\n"
		"[half]\naws_access_key_id = ID2\naws_secret_access_key = s2\n"), 1);
	setenv("AWS_CONFIG_FILE", file("config",
		"[default]\naws_access_key_id = IDX\naws_secret_access_key = sX\n"
		"aws_session_token = tX\n"
		"[profile half]\naws_session_token = other\nregion = x\n"
		"[half]\naws_access_key_id = IDY\n"
		"[profile \"with space\"]\naws_access_key_id = ID3\naws_secret_access_key = s3\n"
		"[profile none]\nregion = x\ns3 =\n  aws_access_key_id = nested\n"
		"[profile source]\nrole_arn = arn:x\nsource_profile = default\n"
		"[profile sso]\nsso_session = x\n"
		"[profile run]\n"
		"credential_process = sh -c 'echo \"$0\"' '{\"Version\": 1, "
		"\"AccessKeyId\": \"ID4\", \"SecretAccessKey\": \"s4\"}'\n"), 1);
	gives_cfg(&cfg, "ID0", SECRET, NULL, 0);
	setenv("AWS_PROFILE", "long", 1);
	gives_cfg(&cfg, "ID1", "s1", LONG, 0);
	cfg.profile = "half";
	gives_cfg(&cfg, "ID2", "s2", NULL, 0);
	cfg.profile = "with space";
	gives_cfg(&cfg, "ID3", "s3", NULL, 0);
	cfg.profile = "run";
	gives_cfg(&cfg, "ID4", "s4", NULL, 0);
	cfg.profile = "none";
	fails_cfg(&cfg, -EACCES, "no credentials");
	cfg.profile = "source";
	fails_cfg(&cfg, -EACCES, "source_profile or credential_source is not supported");
	cfg.profile = "sso";
	fails_cfg(&cfg, -EACCES, "single sign-on is not supported");
	cfg.profile = "missing";
	fails_cfg(&cfg, -EACCES, "\"missing\": there is none");

	cfg.profile = "default";
	file("credentials", "[default]\n" SECRET "\n");
	fails_cfg(&cfg, -EACCES, "credentials:2: neither");
	file("credentials", "[default]\naws_access_key_id = a\n");
	fails_cfg(&cfg, -EACCES, "no secret access key");
}

static void split(const char *command, ...)
{
	char **words = qc2_creds_split(command);
	const char *word;
	va_list ap;
	size_t i;

	assert_non_null(words);
	va_start(ap, command);
	for (i = 0; (word = va_arg(ap, const char *)); i++) {
		assert_non_null(words[i]);
		assert_string_equal(words[i], word);
	}
	assert_null(words[i]);
	va_end(ap);
	free(words);
}

static void test_split(void **state)
{
	static const char *const bad[] = { "", "  ", "a 'b", "a \"b", "a \\", "'a", "''", "\"\\" };

	split("a", "a", NULL);
	split(" a\tb  c ", "a", "b", "c", NULL);
	split("a 'b c' \"d e\"", "a", "b c", "d e", NULL);
	split("a 'b\\n\"' \"c\\\"\\\\\\n'\"", "a", "b\\n\"", "c\"\\\\n'", NULL);
	split("a '' \"\" b''c", "a", "", "", "bc", NULL);
	split("a\\ b \\'c $HOME `x` ; | > #d", "a b", "'c", "$HOME", "`x`", ";", "|", ">", "#d",
	      NULL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_null(qc2_creds_split(bad[i]));
		assert_int_equal(errno, EINVAL);
	}
}

static void prints(const char *command, int ret, const char *part)
{
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_PROCESS);

	cfg.process = command;
	fails_cfg(&cfg, ret, part);
}

static void test_process(void **state)
{
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_PROCESS);
	char command[160];

	snprintf(command, sizeof(command), "cat %s", file("answer",
		 "{\"Version\": 1, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"" SECRET
		 "\", \"SessionToken\": \"t\", \"Expiration\": \"" LATER "\"}"));
	cfg.process = command;
	gives_cfg(&cfg, "A", SECRET, "t", NOW + 3600);
	file("answer", "{\"AccessKeyId\": \"A\", \"SecretAccessKey\": \"" SECRET "\"}");
	prints(command, -EAGAIN, "Version");
	file("answer", "{\"Version\": 1, \"AccessKeyId\": \"A\"}");
	prints(command, -EAGAIN, "no secret access key");
	file("answer", "{\"Version\": 1, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"" SECRET
	     "\", \"Expiration\": \"2025-12-31T23:59:59Z\"}");
	prints(command, -EAGAIN, "expired 1 s ago");
	file("answer", "{\"Version\": 1, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"" SECRET
	     "\", \"Expiration\": \"tomorrow\"}");
	prints(command, -EAGAIN, "no time");
	file("answer", SECRET);
	prints(command, -EAGAIN, "not a JSON object");
	prints("sh -c 'echo " SECRET " >&2; exit 3'", -EAGAIN, "exit status 3");
	prints("sh -c 'kill -9 $$'", -EAGAIN, "signal 9");
	prints("true", -EAGAIN, "not a JSON object");
	prints("/nonexistent/program", -EACCES, "cannot be started");
	prints("sh -c 'x", -EACCES, "quote");
	prints("yes " SECRET, -EAGAIN, "more than 64 KiB");
}

/* It, or what it started, holds the output open, or closes it and goes on. */
static void test_process_hangs(void **state)
{
	static const char *const commands[] = {
		"sleep 1000", "sh -c 'sleep 1000 & exit 0'", "sh -c 'exec >&-; exec sleep 1000'",
		"sh -c 'trap \"\" TERM INT HUP; while :; do sleep 1000; done'",
	};
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_PROCESS);

	cfg.time_limit_ms = 100;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		cfg.process = commands[i];
		fails_cfg(&cfg, -EAGAIN, "did not end within 100 ms");
	}
}

static void test_header_file(void **state)
{
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_HEADER_FILE);
	struct qc2_credentials *creds;
	struct qc2_keys *keys;
	struct qc2_err err;
	char path[96];

	strcpy(path, file("header", "X-Key: " SECRET "\n"));
	cfg.header_file = path;
	creds = qc2_credentials_new(&cfg);
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	keys = qc2_credentials_get(creds);
	assert_string_equal(keys->token, "X-Key: " SECRET);
	qc2_keys_unref(keys);

	/* It changes; that is seen some seconds later. */
	file("header", "tok.en\n");
	assert_false(qc2_credentials_due(creds));
	now += 60;
	assert_true(qc2_credentials_due(creds));
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	keys = qc2_credentials_get(creds);
	assert_string_equal(keys->token, "Authorization: Bearer tok.en");
	qc2_keys_unref(keys);

	/* It is gone; what was there is used on. */
	unlink(path);
	now += 60;
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	qc2_keys_unref(qc2_credentials_get(creds));
	qc2_credentials_free(creds);

	fails_cfg(&cfg, -EACCES, "cannot be opened");
	file("header", "\n");
	fails_cfg(&cfg, -EACCES, "expected one line");
	file("header", "A: " SECRET "\nB: c\n");
	fails_cfg(&cfg, -EACCES, "expected one line");
	chmod(path, 0644);
	fails_cfg(&cfg, -EACCES, "mode 644");
}

/* --- web identity -------------------------------------------------------------------- */

#define STS(fields)							\
	"<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n" \
	"<AssumeRoleWithWebIdentityResult><AssumedRoleUser><AccessKeyId>no</AccessKeyId>" \
	"</AssumedRoleUser><Credentials>" fields "</Credentials>"		\
	"</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
#define STS_KEYS							\
	"<AccessKeyId>A</AccessKeyId><SecretAccessKey>" SECRET "</SecretAccessKey>" \
	"<SessionToken>t&amp;</SessionToken>"

static void setup_web_identity(void)
{
	setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file("token", "jwt." SECRET "\n"), 1);
	setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r", 1);
	setenv("AWS_ENDPOINT_URL_STS", server.url, 1);
	setenv("no_proxy", "127.0.0.1", 1);
}

static void test_web_identity(void **state)
{
	static const struct answer good[] = {
		{ "POST / ", "200 OK", STS(STS_KEYS "<Expiration>" LATER "</Expiration>") }, { } };
	static const struct answer denied[] = {
		{ "POST / ", "400 Bad Request", "<ErrorResponse><Error><Type>Sender</Type>"
		  "<Code>ExpiredTokenException</Code><Message>" SECRET
		  "</Message></Error></ErrorResponse>" }, { } };
	static const struct answer busy[] = {
		{ "POST / ", "503 Busy", "<html>" SECRET "</html>" }, { } };
	static const struct answer idp[] = {
		{ "POST / ", "400 Bad Request",
		  "<ErrorResponse><Error><Code>IDPCommunicationError</Code></Error></ErrorResponse>" },
		{ } };
	static const struct answer echo[] = {
		{ "POST / ", "400 Bad Request",
		  "<ErrorResponse><Error><Code>" SECRET "</Code></Error></ErrorResponse>" }, { } };
	static const struct answer moved[] = {
		{ "POST / ", "302 Found", "" }, { "POST ", "200 OK", STS(STS_KEYS) }, { } };

	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EACCES, "AWS_WEB_IDENTITY_TOKEN_FILE is not set");
	setup_web_identity();
	expect(good);
	gives(QC2_CREDENTIALS_WEB_IDENTITY, "A", SECRET, "t&", NOW + 3600);
	assert_in(server.seen[0], "Content-Type: application/x-www-form-urlencoded");
	assert_in(server.seen[0], "Action=AssumeRoleWithWebIdentity&Version=2011-06-15"
		  "&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=qcow2chain-");
	assert_in(server.seen[0],
		  "&WebIdentityToken=jwt.wJalrXUtnFEMI%2FK7MDENG%2BbPxRfiCYEXAMPLEKEY");
	setenv("AWS_ROLE_SESSION_NAME", "me", 1);
	gives(QC2_CREDENTIALS_WEB_IDENTITY, "A", SECRET, "t&", NOW + 3600);
	assert_in(server.seen[0], "&RoleSessionName=me&");
	expect(denied);
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EACCES, "refuses: ExpiredTokenException");
	expect(busy);
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EAGAIN, "status 503");
	expect(idp);
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EAGAIN, "IDPCommunicationError");
	expect(echo);
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EACCES, "status 400");
	expect(moved);
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EACCES, "status 302");
	assert_int_equal(server.requests, 1);

	/* The same by a profile. */
	expect(good);
	setenv("AWS_CONFIG_FILE", file("config",
		"[profile w]\nrole_arn = arn:w\nrole_session_name = s\nweb_identity_token_file = "),
	       1);
	{
		FILE *f = fopen(getenv("AWS_CONFIG_FILE"), "a");

		fprintf(f, "%s\n", getenv("AWS_WEB_IDENTITY_TOKEN_FILE"));
		fclose(f);
	}
	setenv("AWS_PROFILE", "w", 1);
	gives(QC2_CREDENTIALS_PROFILE, "A", SECRET, "t&", NOW + 3600);
	assert_in(server.seen[0], "&RoleArn=arn%3Aw&RoleSessionName=s&");

	unlink(getenv("AWS_WEB_IDENTITY_TOKEN_FILE"));
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EAGAIN, "token: cannot be opened");
	file("token", "");
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EAGAIN, "has no token");
	file("token", "x");
	setenv("AWS_ENDPOINT_URL_STS", "http://sts.example/", 1);
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EACCES, "https://");
	setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1@sts.example/", 1);
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EACCES, "https://");
	unsetenv("AWS_ENDPOINT_URL_STS");
	setenv("AWS_REGION", "evil.example/", 1);
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EACCES, "the region has");
	unsetenv("AWS_ROLE_ARN");
	fails(QC2_CREDENTIALS_WEB_IDENTITY, -EACCES, "AWS_ROLE_ARN is not set");
}

static void test_sts_answers(void **state)
{
	static const struct {
		const char *text, *part;
	} bad[] = {
		{ "", "not the XML" },
		{ SECRET, "not the XML" },
		{ "<a>", "not the XML" },
		{ "<!DOCTYPE a [<!ENTITY x \"" SECRET "\">]><a>&x;</a>", "not the XML" },
		{ "<a><b><c><d><e><f><g><h><i><j><k><l><m><n><o><p><q></q></p></o></n></m></l></k></j></i></h></g></f></e></d></c></b></a>", "not the XML" },
		{ STS(STS_KEYS), "no Expiration" },
		{ STS(STS_KEYS "<Expiration>soon</Expiration>"), "no time" },
		{ STS(STS_KEYS "<Expiration>2025-12-31T00:00:00Z</Expiration>"), "expired 86400 s ago" },
		{ STS("<AccessKeyId>A</AccessKeyId><SecretAccessKey>" SECRET "</SecretAccessKey>"
		      "<Expiration>" LATER "</Expiration>"), "no SessionToken" },
		{ STS("<SecretAccessKey>" SECRET "</SecretAccessKey><SessionToken>t</SessionToken>"
		      "<Expiration>" LATER "</Expiration>"), "no access key id" },
		{ STS("<AccessKeyId>A B</AccessKeyId><SecretAccessKey>" SECRET
		      "</SecretAccessKey><SessionToken>t</SessionToken>"
		      "<Expiration>" LATER "</Expiration>"), "control character" },
	};
	struct answer answers[] = { { "POST / ", "200 OK", NULL }, { } };

	setup_web_identity();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		answers[0].body = bad[i].text;
		expect(answers);
		fails(QC2_CREDENTIALS_WEB_IDENTITY, -EAGAIN, bad[i].part);
	}
}

/* --- container ------------------------------------------------------------------------ */

#define CONTAINER(more)							\
	"{\"RoleArn\": \"r\", \"AccessKeyId\": \"C\", \"SecretAccessKey\": \"" SECRET	\
	"\", \"Token\": \"t\", \"Expiration\": \"" LATER "\"" more "}"

static void test_container(void **state)
{
	static const struct answer good[] = {
		{ "GET /v2/creds?id=1 ", "200 OK", CONTAINER("") }, { } };
	static const struct answer wrong[] = {
		{ "GET ", "200 OK", "{\"AccessKeyId\": \"C\", \"SecretAccessKey\": \"" SECRET "\"}" }, { } };
	static const struct answer moved[] = { { "GET ", "307 Moved", CONTAINER("") }, { } };
	static const char *const refused[] = {
		"http://example.com/v2", "http://169.254.170.20/", "http://169.254.170.2.example/",
		"http://127.0.0.1@example.com/", "ftp://127.0.0.1/", "file:///etc/passwd",
		"http://169.254.169.254/",
	};
	char url[128];

	fails(QC2_CREDENTIALS_CONTAINER, -EACCES, "CREDENTIALS_RELATIVE_URI nor");
	setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/creds?id=1", 1);
	expect(good);
	gives(QC2_CREDENTIALS_CONTAINER, "C", SECRET, "t", NOW + 3600);
	assert_not_in(server.seen[0], "Authorization");
	setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@example.com/", 1);
	fails(QC2_CREDENTIALS_CONTAINER, -EACCES, "slash");
	unsetenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");

	snprintf(url, sizeof(url), "%s/v2/creds?id=1", server.url);
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret-token", 1);
	gives(QC2_CREDENTIALS_CONTAINER, "C", SECRET, "t", NOW + 3600);
	assert_in(server.seen[0], "Authorization: secret-token\r\n");
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a\r\nb: " SECRET, 1);
	fails(QC2_CREDENTIALS_CONTAINER, -EACCES, "one line");
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file("token", "from-file\n"), 1);
	gives(QC2_CREDENTIALS_CONTAINER, "C", SECRET, "t", NOW + 3600);
	assert_in(server.seen[0], "Authorization: from-file\r\n");
	expect(wrong);
	fails(QC2_CREDENTIALS_CONTAINER, -EAGAIN, "no \"Expiration\"");
	expect(moved);
	fails(QC2_CREDENTIALS_CONTAINER, -EACCES, "status 307");
	assert_int_equal(server.requests, 1);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", refused[i], 1);
		fails(QC2_CREDENTIALS_CONTAINER, -EACCES, "must be an https:// URL");
	}
}

/* --- instance -------------------------------------------------------------------------- */

#define ROLES	"/latest/meta-data/iam/security-credentials/"

static const struct answer instance[] = {
	{ "PUT /latest/api/token ", "200 OK", "session-token" },
	{ "GET " ROLES " ", "200 OK", "my-role\nother\n" },
	{ "GET " ROLES "my-role ", "200 OK",
	  "{\"Code\": \"Success\", \"AccessKeyId\": \"I\", \"SecretAccessKey\": \"" SECRET
	  "\", \"Token\": \"t\", \"Expiration\": \"" LATER "\"}" },
	{ }
};

static void test_instance(void **state)
{
	static const struct answer v1[] = {
		{ "PUT ", "403 Forbidden", SECRET }, { "GET ", "200 OK", "my-role" }, { } };
	static const struct answer no_role[] = {
		{ "PUT ", "200 OK", "tok" }, { } };
	static const struct answer bad_role[] = {
		{ "PUT ", "200 OK", "tok" }, { "GET " ROLES " ", "200 OK", "../x" }, { } };
	static const struct answer bad_token[] = { { "PUT ", "200 OK", "a\r\nb: c" }, { } };
	static const struct answer code[] = {
		{ "PUT ", "200 OK", "tok" }, { "GET " ROLES " ", "200 OK", "r" },
		{ "GET ", "200 OK", "{\"Code\": \"" SECRET "\"}" }, { } };

	expect(instance);
	gives(QC2_CREDENTIALS_INSTANCE, "I", SECRET, "t", NOW + 3600);
	assert_int_equal(server.requests, 3);
	assert_in(server.seen[2], "X-aws-ec2-metadata-token-ttl-seconds: ");
	assert_in(server.seen[1], "X-aws-ec2-metadata-token: session-token\r\n");
	assert_in(server.seen[0], "X-aws-ec2-metadata-token: session-token\r\n");
	/* Never the first version, which a forwarded request could use. */
	expect(v1);
	fails(QC2_CREDENTIALS_INSTANCE, -EACCES, "status 403");
	assert_int_equal(server.requests, 1);
	expect(no_role);
	fails(QC2_CREDENTIALS_INSTANCE, -EACCES, "has no role");
	expect(bad_role);
	fails(QC2_CREDENTIALS_INSTANCE, -EAGAIN, "names no role");
	expect(bad_token);
	fails(QC2_CREDENTIALS_INSTANCE, -EAGAIN, "no usable token");
	expect(code);
	fails(QC2_CREDENTIALS_INSTANCE, -EAGAIN, "other than Success");
	expect(instance);
	setenv("AWS_EC2_METADATA_DISABLED", "TRUE", 1);
	fails(QC2_CREDENTIALS_INSTANCE, -EACCES, "AWS_EC2_METADATA_DISABLED");
	assert_int_equal(server.requests, 0);
}

static void test_bad_servers(void **state)
{
	static const struct answer hangs[] = { { "PUT ", NULL, NULL }, { } };
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_INSTANCE);
	struct answer large[] = { { "PUT ", "200 OK", NULL }, { } };
	char *body = calloc(1, QC2_CREDS_MAX + 2);

	expect(hangs);
	cfg.time_limit_ms = 50;
	fails_cfg(&cfg, -EAGAIN, "no answer within 50 ms");
	memset(body, 'x', QC2_CREDS_MAX + 1);
	large[0].body = body;
	expect(large);
	fails(QC2_CREDENTIALS_INSTANCE, -EAGAIN, "larger than 64 KiB");
	free(body);
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1", 1);
	fails(QC2_CREDENTIALS_INSTANCE, -EAGAIN, "instance: ");
}

/* --- auto -------------------------------------------------------------------------------- */

static void test_auto(void **state)
{
	static const struct answer none[] = { { } };
	static const struct answer all[] = {
		{ "POST / ", "200 OK", STS(STS_KEYS "<Expiration>" LATER "</Expiration>") },
		{ "GET /v2 ", "200 OK", CONTAINER("") }, { } };
	static const struct answer busy[] = { { "POST / ", "503 Busy", "" }, { } };

	expect(none);
	fails(QC2_CREDENTIALS_AUTO, -EACCES,
	      "none found (environment: AWS_ACCESS_KEY_ID is not set; web identity: ");
	fails(QC2_CREDENTIALS_AUTO, -EACCES, "instance: the instance's metadata service: refuses");
	/* From the last to the first. */
	expect(instance);
	gives(QC2_CREDENTIALS_AUTO, "I", SECRET, "t", NOW + 3600);
	expect(all);
	setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2", 1);
	gives(QC2_CREDENTIALS_AUTO, "C", SECRET, "t", NOW + 3600);
	setenv("AWS_SHARED_CREDENTIALS_FILE", file("credentials",
		"[default]\naws_access_key_id = P\naws_secret_access_key = s\n"), 1);
	gives(QC2_CREDENTIALS_AUTO, "P", "s", NULL, 0);
	setup_web_identity();
	gives(QC2_CREDENTIALS_AUTO, "A", SECRET, "t&", NOW + 3600);
	/* One that is set up but fails is not passed over. */
	expect(busy);
	fails(QC2_CREDENTIALS_AUTO, -EAGAIN, "web identity: the token service");
	setenv("AWS_ACCESS_KEY_ID", "E", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
	gives(QC2_CREDENTIALS_AUTO, "E", "s", NULL, 0);
}

/* --- time ---------------------------------------------------------------------------------- */

static void test_time(void **state)
{
	static const char *const bad[] = {
		"", "2026", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z",
		"2026-01-01T00:00:00", "2026-01-01T00:00:00ZZ", "2026-01-01T00:00:00+1",
		"1969-01-01T00:00:00Z", "99999-01-01T00:00:00Z", "2026-01-01X00:00:00Z",
	};

	assert_int_equal(qc2_creds_time("2026-01-01T00:00:00Z"), NOW);
	assert_int_equal(qc2_creds_time("2026-01-01T00:00:00.123Z"), NOW);
	assert_int_equal(qc2_creds_time("2026-01-01T01:30:00+01:30"), NOW);
	assert_int_equal(qc2_creds_time("2025-12-31T23:00:00-01:00"), NOW);
	assert_int_equal(qc2_creds_time("9999-12-31T23:59:59Z"), 253402300799LL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(qc2_creds_time(bad[i]), -1);
}

#define RENEWED	"{\"AccessKeyId\": \"I2\", \"SecretAccessKey\": \"s\", \"Token\": \"t\", "	\
	"\"Expiration\": \"2026-01-01T09:00:00Z\"}"

static void test_expiry(void **state)
{
	static const struct answer fails_now[] = { { "PUT ", "500 Broken", "" }, { } };
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_INSTANCE);
	struct answer renewed[4];
	struct qc2_credentials *creds = qc2_credentials_new(&cfg);
	struct qc2_keys *first, *keys;
	struct qc2_err err;
	unsigned int asked;

	expect(instance);
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	first = qc2_credentials_get(creds);
	assert_false(qc2_credentials_due(creds));
	/* New enough: nobody is asked. */
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	assert_int_equal(server.requests, 3);

	/* Five minutes before the end it is time, whatever the jitter. */
	now = NOW + 3600 - 601;
	assert_false(qc2_credentials_due(creds));
	now = NOW + 3600 - 300;
	assert_true(qc2_credentials_due(creds));
	/* The source fails, the keys are still good: no error, and a pause. */
	expect(fails_now);
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	assert_int_equal(server.requests, 1);
	assert_false(qc2_credentials_due(creds));
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	assert_int_equal(server.requests, 1);
	keys = qc2_credentials_get(creds);
	assert_ptr_equal(keys, first);
	qc2_keys_unref(keys);
	now += 1;
	assert_true(qc2_credentials_due(creds));

	/* They expire. */
	now = NOW + 3600;
	assert_null(qc2_credentials_get(creds));
	assert_int_equal(qc2_credentials_refresh(creds, &err), -EAGAIN);
	assert_in(err.msg, "credentials: instance: the instance's metadata service: answers with status 500");

	/* The pauses grow to at most a minute, in which the same is said again. */
	for (int i = 0; i < 8; i++) {
		now += 60;
		asked = server.requests;
		assert_int_equal(qc2_credentials_refresh(creds, &err), -EAGAIN);
		assert_int_equal(server.requests, asked + 1);
	}
	now += 29;
	assert_false(qc2_credentials_due(creds));
	assert_int_equal(qc2_credentials_refresh(creds, &err), -EAGAIN);
	assert_in(err.msg, "status 500");
	assert_int_equal(server.requests, asked + 1);
	/* A clock that is put back makes no long pause of it. */
	now -= 100;
	assert_true(qc2_credentials_due(creds));
	now += 100;

	/* The source is back. */
	memcpy(renewed, instance, sizeof(renewed));
	renewed[2].body = RENEWED;
	expect(renewed);
	now += 60;
	assert_true(qc2_credentials_due(creds));
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	keys = qc2_credentials_get(creds);
	assert_string_equal(keys->id, "I2");
	/* Who still has the old ones can use them, for what it is worth. */
	assert_string_equal(first->id, "I");
	qc2_keys_unref(first);
	qc2_keys_unref(keys);
	qc2_credentials_free(creds);
}

/* Keys that live shortly are renewed in the second half of their life. */
static void test_short_life(void **state)
{
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_INSTANCE);
	struct qc2_credentials *creds = qc2_credentials_new(&cfg);
	struct qc2_err err;

	now = NOW + 3600 - 100;
	expect(instance);
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	now += 50;
	assert_false(qc2_credentials_due(creds));
	now += 26;
	assert_true(qc2_credentials_due(creds));
	qc2_credentials_free(creds);
}

static void test_reject(void **state)
{
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_INSTANCE);
	struct qc2_credentials *creds = qc2_credentials_new(&cfg);
	struct qc2_keys *first, *second;
	struct answer renewed[4];
	struct qc2_err err;

	expect(instance);
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	first = qc2_credentials_get(creds);
	qc2_credentials_reject(creds, first);
	assert_null(qc2_credentials_get(creds));
	assert_true(qc2_credentials_due(creds));

	/* There are no others yet. */
	assert_int_equal(qc2_credentials_refresh(creds, &err), -EACCES);
	assert_in(err.msg, "the store says that the keys have expired");
	assert_int_equal(server.requests, 6);
	assert_null(qc2_credentials_get(creds));
	assert_false(qc2_credentials_due(creds));

	/* New ones, which a late rejection of the old ones does not touch. */
	memcpy(renewed, instance, sizeof(renewed));
	renewed[2].body = RENEWED;
	expect(renewed);
	now += 1;
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	qc2_credentials_reject(creds, first);
	second = qc2_credentials_get(creds);
	assert_string_equal(second->id, "I2");

	/* Wrongly rejected: they get another chance after the pause. */
	qc2_credentials_reject(creds, second);
	assert_int_equal(qc2_credentials_refresh(creds, &err), -EACCES);
	assert_int_equal(qc2_credentials_refresh(creds, &err), -EACCES);
	now += 1;
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	qc2_keys_unref(second);
	second = qc2_credentials_get(creds);
	assert_string_equal(second->id, "I2");
	/* Again: the pause is a longer one, so that this does not go on and on. */
	qc2_credentials_reject(creds, second);
	assert_int_equal(qc2_credentials_refresh(creds, &err), -EACCES);
	now += 60;
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	qc2_keys_unref(first);
	qc2_keys_unref(second);
	qc2_credentials_free(creds);
}

/* Other keys each time, and the store takes none: the source is not asked on and on. */
static void test_reject_all(void **state)
{
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_PROCESS);
	struct qc2_credentials *creds;
	struct qc2_keys *keys;
	unsigned int asked = 0;
	struct qc2_err err;

	cfg.process = file("new-keys", "#!/bin/sh\n"
		"echo '{\"Version\": 1, \"AccessKeyId\": \"I'$$'\", \"SecretAccessKey\": \"S\"}'\n");
	assert_int_equal(chmod(cfg.process, 0700), 0);
	creds = qc2_credentials_new(&cfg);
	for (int i = 0; i < 200; i++) {
		if (i == 100)
			now += 1;
		if (qc2_credentials_refresh(creds, &err))
			continue;
		asked++;
		keys = qc2_credentials_get(creds);
		qc2_credentials_reject(creds, keys);
		qc2_keys_unref(keys);
	}
	assert_int_equal(asked, 4);
	assert_int_equal(qc2_credentials_refresh(creds, &err), -EACCES);
	assert_in(err.msg, "of new keys as well");
	/* Keys that were good for a while are renewed at once. */
	now += 60;
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	now += 60;
	keys = qc2_credentials_get(creds);
	qc2_credentials_reject(creds, keys);
	qc2_keys_unref(keys);
	assert_ok(qc2_credentials_refresh(creds, &err), err);
	qc2_credentials_free(creds);
}

/* --- threads --------------------------------------------------------------------------------- */

#define THREADS	8

static struct {
	struct qc2_credentials *creds;
	_Atomic unsigned int good, denied;
} crowd;

static void *refresh_thread(void *arg)
{
	struct qc2_err err;
	int ret = qc2_credentials_refresh(crowd.creds, &err);

	if (!ret)
		crowd.good++;
	else if (ret == -EACCES && strstr(err.msg, "status 403"))
		crowd.denied++;
	return NULL;
}

static void run_crowd(const struct answer *answers)
{
	struct qc2_credentials_config cfg = config(QC2_CREDENTIALS_INSTANCE);
	pthread_t threads[THREADS];

	crowd.creds = qc2_credentials_new(&cfg);
	crowd.good = crowd.denied = 0;
	expect(answers);
	pthread_mutex_lock(&server.lock);
	server.hold = true;
	pthread_mutex_unlock(&server.lock);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, refresh_thread, NULL), 0);
	/* One has asked.  Nobody else should start now. */
	pthread_mutex_lock(&server.lock);
	while (!server.requests)
		pthread_cond_wait(&server.change, &server.lock);
	assert_false(qc2_credentials_due(crowd.creds));
	assert_null(qc2_credentials_get(crowd.creds));
	server.hold = false;
	pthread_cond_broadcast(&server.change);
	pthread_mutex_unlock(&server.lock);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	qc2_credentials_free(crowd.creds);
}

static void test_single_flight(void **state)
{
	static const struct answer denied[] = { { "PUT ", "403 Forbidden", "" }, { } };

	run_crowd(instance);
	assert_int_equal(crowd.good, THREADS);
	assert_int_equal(server.requests, 3);
	run_crowd(denied);
	assert_int_equal(crowd.denied, THREADS);
	assert_int_equal(server.requests, 1);
}

/* --- memory ------------------------------------------------------------------------------------ */

/* The kernel says of the pages that they are not for core dumps ("dd"). */
static void test_not_dumped(void **state)
{
	struct qc2_keys *keys = qc2_keys_new("id", SECRET, NULL, 0);
	bool ours = false, found = false;
	unsigned long start, end;
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = start <= (unsigned long)keys->secret &&
			       (unsigned long)keys->secret < end;
		else if (ours && !strncmp(line, "VmFlags:", 8))
			found = strstr(line, " dd");
	}
	fclose(f);
	assert_true(found);
	qc2_keys_unref(qc2_keys_ref(keys));
	assert_string_equal(keys->secret, SECRET);
	qc2_keys_unref(keys);
}

/* ------------------------------------------------------------------------------------------------ */

static int setup(void **state)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);

	if (!mkdtemp(dir) || curl_global_init(CURL_GLOBAL_DEFAULT))
		return -1;
	server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(server.listener, (void *)&addr, len) || listen(server.listener, 16) ||
	    getsockname(server.listener, (void *)&addr, &len))
		return -1;
	sprintf(server.url, "http://127.0.0.1:%u", ntohs(addr.sin_port));
	return pthread_create(&server.thread, NULL, serve, NULL);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	shutdown(server.listener, SHUT_RDWR);
	pthread_join(server.thread, NULL);
	close(server.listener);
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_environment, clear),
		cmocka_unit_test_setup(test_profile, clear),
		cmocka_unit_test_setup(test_split, clear),
		cmocka_unit_test_setup(test_process, clear),
		cmocka_unit_test_setup(test_process_hangs, clear),
		cmocka_unit_test_setup(test_header_file, clear),
		cmocka_unit_test_setup(test_web_identity, clear),
		cmocka_unit_test_setup(test_sts_answers, clear),
		cmocka_unit_test_setup(test_container, clear),
		cmocka_unit_test_setup(test_instance, clear),
		cmocka_unit_test_setup(test_bad_servers, clear),
		cmocka_unit_test_setup(test_auto, clear),
		cmocka_unit_test_setup(test_time, clear),
		cmocka_unit_test_setup(test_expiry, clear),
		cmocka_unit_test_setup(test_short_life, clear),
		cmocka_unit_test_setup(test_reject, clear),
		cmocka_unit_test_setup(test_reject_all, clear),
		cmocka_unit_test_setup(test_single_flight, clear),
		cmocka_unit_test_setup(test_not_dumped, clear),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
