PRAGMA application_id=1397052228;
PRAGMA user_version=2;
BEGIN TRANSACTION;
CREATE TABLE adk_events (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    app_name       TEXT NOT NULL,
    user_id        TEXT NOT NULL,
    session_id     TEXT NOT NULL,
    invocation_id  TEXT NOT NULL,
    author         TEXT NOT NULL,
    timestamp      TEXT NOT NULL,
    content        TEXT,
    actions        TEXT NOT NULL,
    extra          TEXT,
    seq            INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    event_id       TEXT NOT NULL,
    event_time     REAL NOT NULL,
    incarnation    INTEGER NOT NULL,
    event_hash     INTEGER NOT NULL,
    FOREIGN KEY (app_name, user_id, session_id)
        REFERENCES adk_sessions (app_name, user_id, session_id) ON DELETE CASCADE
);
INSERT INTO "adk_events" VALUES(1,'scripted_app','user_123','conversation','e-1f4a9fa8-e330-4ede-b409-3b857f67e380','user','2026-11-27T15:08:55.554543Z','{"parts":[{"text":"remember a and b"}],"role":"user"}','{"state_delta":{}}',NULL,1,1,'88d0688a-d03f-44f3-a059-1467d20bcf8f',1.79579213555454301836e+09,1,3931513545463369174);
INSERT INTO "adk_events" VALUES(2,'scripted_app','user_123','conversation','e-1f4a9fa8-e330-4ede-b409-3b857f67e380','scripted_agent','2026-11-27T15:08:55.854825Z','{"parts":[{"function_call":{"id":"adk-5648ef86-1c75-4cb0-b070-0b5039743e77","args":{"thing":"a"},"name":"remember"}},{"function_call":{"id":"adk-7956740c-99dc-4ff5-9ebd-50e27c57eb98","args":{},"name":"look_back"}},{"function_call":{"id":"adk-3dcee6cd-4e30-45a8-8fbd-4d80a8f68f8b","args":{"thing":"b"},"name":"remember"}}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":3},"node_info":{"path":"scripted_agent@1"},"long_running_tool_ids":[]}',2,2,'ef56faac-8969-4876-8080-8b5043e0d957',1.79579213585482549671e+09,1,250922609128410683);
INSERT INTO "adk_events" VALUES(3,'scripted_app','user_123','conversation','e-1f4a9fa8-e330-4ede-b409-3b857f67e380','scripted_agent','2026-11-27T15:08:55.901921Z','{"parts":[{"function_response":{"id":"adk-5648ef86-1c75-4cb0-b070-0b5039743e77","name":"remember","response":{"remembered":"a","so_far":1}}},{"function_response":{"id":"adk-7956740c-99dc-4ff5-9ebd-50e27c57eb98","name":"look_back","response":{"things":["a"],"temp":"a"}}},{"function_response":{"id":"adk-3dcee6cd-4e30-45a8-8fbd-4d80a8f68f8b","name":"remember","response":{"remembered":"b","so_far":2}}}],"role":"user"}','{"state_delta":{"things":["a","b"],"user:count":2,"app:last":{"thing":"b","length":1}}}','{"node_info":{"path":"scripted_agent@1"}}',3,3,'b87c7a0c-38bf-4f8e-93cd-2ad14e157295',1.79579213590192127225e+09,1,-6201771044780143886);
INSERT INTO "adk_events" VALUES(4,'scripted_app','user_123','conversation','e-1f4a9fa8-e330-4ede-b409-3b857f67e380','scripted_agent','2026-11-27T15:08:55.918418Z','{"parts":[{"text":"done"}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":1},"node_info":{"path":"scripted_agent@1"}}',4,4,'1c7b3e01-7248-49cf-bad2-0716f0025689',1.79579213591841769211e+09,1,3325133449910176801);
INSERT INTO "adk_events" VALUES(5,'scripted_app','user_123','conversation','e-2a7f5aa7-4f30-4821-97c7-179a43c7af7e','user','2026-11-27T15:08:56.018529Z','{"parts":[{"text":"and?"}],"role":"user"}','{"state_delta":{}}',NULL,5,5,'e1f307ea-4b6c-4fb4-9ae0-2b2685184116',1.79579213601852917666e+09,1,-6793469152792964245);
INSERT INTO "adk_events" VALUES(6,'scripted_app','user_123','conversation','e-2a7f5aa7-4f30-4821-97c7-179a43c7af7e','scripted_agent','2026-11-27T15:08:56.040901Z','{"parts":[{"text":"again"}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":1},"node_info":{"path":"scripted_agent@1"}}',6,6,'946c2e7a-c817-43e6-80dc-c54e7c13b058',1.79579213604090094568e+09,1,-7298139371650356724);
INSERT INTO "adk_events" VALUES(7,'my_app','user_123','sess_abc','inv_0','agent','2026-11-27T15:08:56.099148Z','{"parts":[{"text":"日本 0","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":0,"user:count":0,"gone":null}}',NULL,1,1,'2d151701-a08f-4911-89d6-5e80008bfdfa',1.79579213609914827348e+09,2,3464041820451569083);
INSERT INTO "adk_events" VALUES(8,'my_app','user_123','sess_abc','inv_1','agent','2026-11-27T15:08:56.116829Z','{"parts":[{"text":"日本 1","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":1,"user:count":1,"gone":null}}',NULL,2,2,'b5b378f9-3897-46df-9c9a-415a8d6dcdf1',1.79579213611682939532e+09,2,3995209396476394481);
INSERT INTO "adk_events" VALUES(9,'my_app','user_123','sess_abc','inv_2','agent','2026-11-27T15:08:56.129048Z','{"parts":[{"text":"日本 2","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":2,"user:count":2,"gone":null}}',NULL,3,3,'1e44bd8f-09f7-4334-93cc-98a285013df9',1.7957921361290478706e+09,2,-7441640514611046328);
INSERT INTO "adk_events" VALUES(10,'my_app','user_123','sess_abc','update-128db560-7e5b-42d5-b1bc-d7500bc1148b','user','2026-11-27T15:08:56.168888Z',NULL,'{"state_delta":{"outside":[1],"app:version":null}}',NULL,4,3,'fa879794-43b4-4495-b9ae-e33c4143b395',1.79579213616888833052e+09,2,2848799336894255609);
CREATE TABLE adk_sessions (
    app_name     TEXT NOT NULL,
    user_id      TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    update_time  REAL NOT NULL,
    incarnation  INTEGER NOT NULL,
    revision     INTEGER NOT NULL DEFAULT 0,
    last_seq     INTEGER NOT NULL DEFAULT 0,
    log_epoch    INTEGER NOT NULL DEFAULT 0, initial_state TEXT, begun_after INTEGER, forked_user_id TEXT, forked_session_id TEXT, forked_seq INTEGER, cut_seq INTEGER NOT NULL DEFAULT 0, cut_revision INTEGER NOT NULL DEFAULT 0, cut_time REAL,
    PRIMARY KEY (app_name, user_id, session_id)
);
INSERT INTO "adk_sessions" VALUES('scripted_app','user_123','conversation','2026-11-27T15:08:53.945541Z','2026-11-27T15:08:56.040901Z',1.79579213604090094568e+09,1,6,6,0,'{}',0,NULL,NULL,NULL,0,0,NULL);
INSERT INTO "adk_sessions" VALUES('my_app','user_123','sess_abc','2026-11-27T15:08:56.077519Z','2026-11-27T15:08:56.168888Z',1.79579213616888833052e+09,2,3,4,0,'{"grün":[1,2.5,null,{"🤖":true}],"user:theme":"dark","app:version":{"major":1},"gone":1}',6,NULL,NULL,NULL,0,0,NULL);
INSERT INTO "adk_sessions" VALUES('my_app','user_123','empty','2026-11-27T15:08:56.192665Z','2026-11-27T15:08:56.192665Z',1.79579213619266510014e+09,3,0,0,0,'{}',10,NULL,NULL,NULL,0,0,NULL);
INSERT INTO "adk_sessions" VALUES('my_app','%_''"','odd ids','2026-11-27T15:08:56.231152Z','2026-11-27T15:08:56.231152Z',1.79579213623115205768e+09,4,0,0,0,'{}',10,NULL,NULL,NULL,0,0,NULL);
CREATE TABLE adk_state (
    app_name     TEXT NOT NULL,
    user_id      TEXT,
    session_id   TEXT,
    scope        TEXT NOT NULL CHECK (scope IN ('SESSION', 'USER', 'APP')),
    state_key    TEXT NOT NULL,
    state_value  TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    PRIMARY KEY (app_name, user_id, session_id, scope, state_key)
);
INSERT INTO "adk_state" VALUES('scripted_app','user_123','conversation','SESSION','things','["a","b"]','2026-11-27T15:08:55.901921Z');
INSERT INTO "adk_state" VALUES('scripted_app','user_123',NULL,'USER','count','2','2026-11-27T15:08:55.901921Z');
INSERT INTO "adk_state" VALUES('scripted_app',NULL,NULL,'APP','last','{"thing":"b","length":1}','2026-11-27T15:08:55.901921Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','grün','[1,2.5,null,{"🤖":true}]','2026-11-27T15:08:56.077519Z');
INSERT INTO "adk_state" VALUES('my_app','user_123',NULL,'USER','theme','"dark"','2026-11-27T15:08:56.077519Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','number','2','2026-11-27T15:08:56.129048Z');
INSERT INTO "adk_state" VALUES('my_app','user_123',NULL,'USER','count','2','2026-11-27T15:08:56.129048Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','outside','[1]','2026-11-27T15:08:56.168888Z');
CREATE TABLE sessiondb_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "sessiondb_meta" VALUES('incarnations',5);
CREATE INDEX adk_sessions_updated ON adk_sessions (update_time, user_id, session_id, app_name);
CREATE INDEX adk_sessions_forks ON adk_sessions (app_name, forked_user_id, forked_session_id) WHERE forked_seq IS NOT NULL;
CREATE INDEX adk_events_log ON adk_events (app_name, user_id, session_id);
CREATE INDEX adk_events_identity ON adk_events (incarnation, event_time, event_hash);
CREATE UNIQUE INDEX adk_state_user ON adk_state (app_name, user_id, state_key) WHERE scope = 'USER';
CREATE UNIQUE INDEX adk_state_app ON adk_state (app_name, state_key) WHERE scope = 'APP';
CREATE TRIGGER adk_events_changed AFTER UPDATE ON adk_events BEGIN
    UPDATE adk_sessions SET log_epoch = log_epoch + 1
     WHERE (app_name, user_id, session_id) IN
           (VALUES (OLD.app_name, OLD.user_id, OLD.session_id), (NEW.app_name, NEW.user_id, NEW.session_id));
END;
CREATE TRIGGER adk_events_removed AFTER DELETE ON adk_events WHEN OLD.seq > (
    SELECT cut_seq FROM adk_sessions
     WHERE app_name = OLD.app_name AND user_id = OLD.user_id AND session_id = OLD.session_id
) BEGIN
    UPDATE adk_sessions SET log_epoch = log_epoch + 1
     WHERE app_name = OLD.app_name AND user_id = OLD.user_id AND session_id = OLD.session_id;
END;
CREATE TRIGGER adk_sessions_deleted AFTER DELETE ON adk_sessions BEGIN
    DELETE FROM adk_events
     WHERE app_name = OLD.app_name AND user_id = OLD.user_id AND session_id = OLD.session_id;
    DELETE FROM adk_state
     WHERE app_name = OLD.app_name AND user_id = OLD.user_id AND session_id = OLD.session_id AND scope = 'SESSION';
END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('adk_events',10);
COMMIT;
