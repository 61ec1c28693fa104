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
INSERT INTO "adk_events" VALUES(1,'scripted_app','user_123','conversation','e-f172d98e-38f9-4d3e-89e1-84c4597954aa','user','2026-11-27T12:58:48.901987Z','{"parts":[{"text":"remember a and b"}],"role":"user"}','{"state_delta":{}}',NULL,1,1,'75a3f961-39b2-4ea9-99b6-ef35cecdc767',1.79578432890198683743e+09,1,1579633465251080154);
INSERT INTO "adk_events" VALUES(2,'scripted_app','user_123','conversation','e-f172d98e-38f9-4d3e-89e1-84c4597954aa','scripted_agent','2026-11-27T12:58:49.223577Z','{"parts":[{"function_call":{"id":"adk-9da2c1e1-3b2d-416d-9932-7258f662e9f7","args":{"thing":"a"},"name":"remember"}},{"function_call":{"id":"adk-a0192d4d-3571-40b3-b7aa-adbe7f29e0a7","args":{},"name":"look_back"}},{"function_call":{"id":"adk-cf40851e-051e-4524-9c09-8aa7162228f4","args":{"thing":"b"},"name":"remember"}}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":3},"node_info":{"path":"scripted_agent@1"},"long_running_tool_ids":[]}',2,2,'cf40254d-8690-46b0-8879-e4eb94fdbfa6',1.795784329223577261e+09,1,8852604739167603086);
INSERT INTO "adk_events" VALUES(3,'scripted_app','user_123','conversation','e-f172d98e-38f9-4d3e-89e1-84c4597954aa','scripted_agent','2026-11-27T12:58:49.253314Z','{"parts":[{"function_response":{"id":"adk-9da2c1e1-3b2d-416d-9932-7258f662e9f7","name":"remember","response":{"remembered":"a","so_far":1}}},{"function_response":{"id":"adk-a0192d4d-3571-40b3-b7aa-adbe7f29e0a7","name":"look_back","response":{"things":["a"],"temp":"a"}}},{"function_response":{"id":"adk-cf40851e-051e-4524-9c09-8aa7162228f4","name":"remember","response":{"remembered":"b","so_far":2}}}],"role":"user"}','{"state_delta":{"things":["a","b"],"user:count":2,"app:last":{"thing":"b","length":1}}}','{"node_info":{"path":"scripted_agent@1"}}',3,3,'1bfdd296-896f-4afa-ab15-67772fce61c8',1.7957843292533137798e+09,1,-3176547665263587697);
INSERT INTO "adk_events" VALUES(4,'scripted_app','user_123','conversation','e-f172d98e-38f9-4d3e-89e1-84c4597954aa','scripted_agent','2026-11-27T12:58:49.262573Z','{"parts":[{"text":"done"}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":1},"node_info":{"path":"scripted_agent@1"}}',4,4,'88756419-e48c-4d13-b0e5-e04595c16907',1.79578432926257252691e+09,1,8839982683438719555);
INSERT INTO "adk_events" VALUES(5,'scripted_app','user_123','conversation','e-36bded8a-de1e-4b6f-b016-342f4f55a6f2','user','2026-11-27T12:58:49.314102Z','{"parts":[{"text":"and?"}],"role":"user"}','{"state_delta":{}}',NULL,5,5,'d9406a70-6ae8-4819-af9a-3ced39c3c9b1',1.79578432931410193447e+09,1,8990329801282751272);
INSERT INTO "adk_events" VALUES(6,'scripted_app','user_123','conversation','e-36bded8a-de1e-4b6f-b016-342f4f55a6f2','scripted_agent','2026-11-27T12:58:49.331608Z','{"parts":[{"text":"again"}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":1},"node_info":{"path":"scripted_agent@1"}}',6,6,'ce23f401-3d6c-47b7-95b9-070fd23dab19',1.79578432933160805698e+09,1,-6875931177262327393);
INSERT INTO "adk_events" VALUES(7,'my_app','user_123','sess_abc','inv_0','agent','2026-11-27T12:58:49.416973Z','{"parts":[{"text":"日本 0","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":0,"user:count":0,"gone":null}}',NULL,1,1,'dcf3ab37-0bb6-44a2-9c91-535e29a95552',1.79578432941697311402e+09,2,-8166851757493677695);
INSERT INTO "adk_events" VALUES(8,'my_app','user_123','sess_abc','inv_1','agent','2026-11-27T12:58:49.427088Z','{"parts":[{"text":"日本 1","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":1,"user:count":1,"gone":null}}',NULL,2,2,'9d25589f-224b-459b-8b64-85c50b4eb2e8',1.79578432942708802219e+09,2,-284759108109736583);
INSERT INTO "adk_events" VALUES(9,'my_app','user_123','sess_abc','inv_2','agent','2026-11-27T12:58:49.477012Z','{"parts":[{"text":"日本 2","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":2,"user:count":2,"gone":null}}',NULL,3,3,'1b445085-c7ea-4d94-9045-6ff03302c757',1.79578432947701168058e+09,2,-4537295632802272719);
INSERT INTO "adk_events" VALUES(10,'my_app','user_123','sess_abc','update-2caf8f05-86a7-447c-aeda-70f3272dabba','user','2026-11-27T12:58:49.486852Z',NULL,'{"state_delta":{"outside":[1],"app:version":null}}',NULL,4,3,'0fa30468-8e59-4963-8219-2680a6c9bb98',1.79578432948685240747e+09,2,-8436976887769929221);
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
    log_epoch    INTEGER NOT NULL DEFAULT 0, initial_state TEXT, begun_after INTEGER, forked_user_id TEXT, forked_session_id TEXT, forked_seq INTEGER,
    PRIMARY KEY (app_name, user_id, session_id)
);
INSERT INTO "adk_sessions" VALUES('scripted_app','user_123','conversation','2026-11-27T12:58:47.425342Z','2026-11-27T12:58:49.331608Z',1.79578432933160805698e+09,1,6,6,0,'{}',0,NULL,NULL,NULL);
INSERT INTO "adk_sessions" VALUES('my_app','user_123','sess_abc','2026-11-27T12:58:49.382726Z','2026-11-27T12:58:49.486852Z',1.79578432948685240747e+09,2,3,4,0,'{"grün":[1,2.5,null,{"🤖":true}],"user:theme":"dark","app:version":{"major":1},"gone":1}',6,NULL,NULL,NULL);
INSERT INTO "adk_sessions" VALUES('my_app','user_123','empty','2026-11-27T12:58:49.494557Z','2026-11-27T12:58:49.494557Z',1.7957843294945569038e+09,3,0,0,0,'{}',10,NULL,NULL,NULL);
INSERT INTO "adk_sessions" VALUES('my_app','%_''"','odd ids','2026-11-27T12:58:49.505106Z','2026-11-27T12:58:49.505106Z',1.79578432950510597223e+09,4,0,0,0,'{}',10,NULL,NULL,NULL);
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
INSERT INTO "adk_state" VALUES('scripted_app','user_123','conversation','SESSION','things','["a","b"]','2026-11-27T12:58:49.253314Z');
INSERT INTO "adk_state" VALUES('scripted_app','user_123',NULL,'USER','count','2','2026-11-27T12:58:49.253314Z');
INSERT INTO "adk_state" VALUES('scripted_app',NULL,NULL,'APP','last','{"thing":"b","length":1}','2026-11-27T12:58:49.253314Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','grün','[1,2.5,null,{"🤖":true}]','2026-11-27T12:58:49.382726Z');
INSERT INTO "adk_state" VALUES('my_app','user_123',NULL,'USER','theme','"dark"','2026-11-27T12:58:49.382726Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','number','2','2026-11-27T12:58:49.477012Z');
INSERT INTO "adk_state" VALUES('my_app','user_123',NULL,'USER','count','2','2026-11-27T12:58:49.477012Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','outside','[1]','2026-11-27T12:58:49.486852Z');
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
CREATE TRIGGER adk_events_removed AFTER DELETE ON adk_events BEGIN
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
