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
INSERT INTO "adk_events" VALUES(1,'scripted_app','user_123','conversation','e-c20c4e0b-18d7-4601-8b1b-3bcdc0fb4e74','user','2026-11-27T12:54:11.224148Z','{"parts":[{"text":"remember a and b"}],"role":"user"}','{"state_delta":{}}',NULL,1,1,'6fca8071-871f-4303-bb2d-67fc0982b5ae',1.79578405122414827346e+09,1,1572819756589027082);
INSERT INTO "adk_events" VALUES(2,'scripted_app','user_123','conversation','e-c20c4e0b-18d7-4601-8b1b-3bcdc0fb4e74','scripted_agent','2026-11-27T12:54:11.817346Z','{"parts":[{"function_call":{"id":"adk-dd0882c0-1453-4ae2-8930-ac2c8f71f616","args":{"thing":"a"},"name":"remember"}},{"function_call":{"id":"adk-d3ecb839-52ad-40db-8ef2-5124678109ed","args":{},"name":"look_back"}},{"function_call":{"id":"adk-3425181d-7080-45bc-bc37-807d83428a13","args":{"thing":"b"},"name":"remember"}}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":3},"node_info":{"path":"scripted_agent@1"},"long_running_tool_ids":[]}',2,2,'2316355a-1240-4367-bbea-9e8f9aa4d5d4',1.79578405181734585766e+09,1,8842347314085139418);
INSERT INTO "adk_events" VALUES(3,'scripted_app','user_123','conversation','e-c20c4e0b-18d7-4601-8b1b-3bcdc0fb4e74','scripted_agent','2026-11-27T12:54:11.891323Z','{"parts":[{"function_response":{"id":"adk-dd0882c0-1453-4ae2-8930-ac2c8f71f616","name":"remember","response":{"remembered":"a","so_far":1}}},{"function_response":{"id":"adk-d3ecb839-52ad-40db-8ef2-5124678109ed","name":"look_back","response":{"things":["a"],"temp":"a"}}},{"function_response":{"id":"adk-3425181d-7080-45bc-bc37-807d83428a13","name":"remember","response":{"remembered":"b","so_far":2}}}],"role":"user"}','{"state_delta":{"things":["a","b"],"user:count":2,"app:last":{"thing":"b","length":1}}}','{"node_info":{"path":"scripted_agent@1"}}',3,3,'901be204-e0a2-44aa-b415-ab73112fc895',1.79578405189132308964e+09,1,3448697599498092094);
INSERT INTO "adk_events" VALUES(4,'scripted_app','user_123','conversation','e-c20c4e0b-18d7-4601-8b1b-3bcdc0fb4e74','scripted_agent','2026-11-27T12:54:11.931515Z','{"parts":[{"text":"done"}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":1},"node_info":{"path":"scripted_agent@1"}}',4,4,'2267f9df-dfcb-4fd9-9f60-be740cdb2755',1.79578405193151545522e+09,1,1610836619262073571);
INSERT INTO "adk_events" VALUES(5,'scripted_app','user_123','conversation','e-11958505-001c-46c9-875d-43d7a0fb872e','user','2026-11-27T12:54:12.000616Z','{"parts":[{"text":"and?"}],"role":"user"}','{"state_delta":{}}',NULL,5,5,'c92ac780-46fa-4f76-8ccb-fb03113d2bcf',1.79578405200061583515e+09,1,4915644305909245818);
INSERT INTO "adk_events" VALUES(6,'scripted_app','user_123','conversation','e-11958505-001c-46c9-875d-43d7a0fb872e','scripted_agent','2026-11-27T12:54:12.034857Z','{"parts":[{"text":"again"}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":1},"node_info":{"path":"scripted_agent@1"}}',6,6,'77eeb00a-71ca-4cba-940e-9582384c5611',1.7957840520348570347e+09,1,3064757154491130426);
INSERT INTO "adk_events" VALUES(7,'my_app','user_123','sess_abc','inv_0','agent','2026-11-27T12:54:12.091908Z','{"parts":[{"text":"日本 0","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":0,"user:count":0,"gone":null}}',NULL,1,1,'1e13424d-89fb-4448-b417-95cf150b1f4d',1.79578405209190845488e+09,2,-1438526245920065351);
INSERT INTO "adk_events" VALUES(8,'my_app','user_123','sess_abc','inv_1','agent','2026-11-27T12:54:12.113428Z','{"parts":[{"text":"日本 1","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":1,"user:count":1,"gone":null}}',NULL,2,2,'b467faf9-f7a0-44d7-9e05-d5232fbfdfe9',1.79578405211342811585e+09,2,-2585615300469221177);
INSERT INTO "adk_events" VALUES(9,'my_app','user_123','sess_abc','inv_2','agent','2026-11-27T12:54:12.134046Z','{"parts":[{"text":"日本 2","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":2,"user:count":2,"gone":null}}',NULL,3,3,'67e3d6d6-c2f1-4981-a97c-fb38fd87cd60',1.79578405213404583931e+09,2,8700337734443539689);
INSERT INTO "adk_events" VALUES(10,'my_app','user_123','sess_abc','update-3cb12f32-257b-4d24-bcd9-b540fb5d931e','user','2026-11-27T12:54:12.149920Z',NULL,'{"state_delta":{"outside":[1],"app:version":null}}',NULL,4,3,'fdc3c4eb-98f4-42ea-ac51-f9b7d9344ed8',1795784052.14992,2,-4676370627851468638);
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
INSERT INTO "adk_sessions" VALUES('scripted_app','user_123','conversation','2026-11-27T12:54:09.020838Z','2026-11-27T12:54:12.034857Z',1.7957840520348570347e+09,1,6,6,0,'{}',0,NULL,NULL,NULL);
INSERT INTO "adk_sessions" VALUES('my_app','user_123','sess_abc','2026-11-27T12:54:12.068641Z','2026-11-27T12:54:12.149920Z',1795784052.14992,2,3,4,0,'{"grün":[1,2.5,null,{"🤖":true}],"user:theme":"dark","app:version":{"major":1},"gone":1}',6,NULL,NULL,NULL);
INSERT INTO "adk_sessions" VALUES('my_app','user_123','empty','2026-11-27T12:54:12.160905Z','2026-11-27T12:54:12.160905Z',1.79578405216090488437e+09,3,0,0,0,'{}',10,NULL,NULL,NULL);
INSERT INTO "adk_sessions" VALUES('my_app','%_''"','odd ids','2026-11-27T12:54:12.169801Z','2026-11-27T12:54:12.169801Z',1.79578405216980099682e+09,4,0,0,0,'{}',10,NULL,NULL,NULL);
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
INSERT INTO "adk_state" VALUES('scripted_app','user_123','conversation','SESSION','things','["a","b"]','2026-11-27T12:54:11.891323Z');
INSERT INTO "adk_state" VALUES('scripted_app','user_123',NULL,'USER','count','2','2026-11-27T12:54:11.891323Z');
INSERT INTO "adk_state" VALUES('scripted_app',NULL,NULL,'APP','last','{"thing":"b","length":1}','2026-11-27T12:54:11.891323Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','grün','[1,2.5,null,{"🤖":true}]','2026-11-27T12:54:12.068641Z');
INSERT INTO "adk_state" VALUES('my_app','user_123',NULL,'USER','theme','"dark"','2026-11-27T12:54:12.068641Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','number','2','2026-11-27T12:54:12.134046Z');
INSERT INTO "adk_state" VALUES('my_app','user_123',NULL,'USER','count','2','2026-11-27T12:54:12.134046Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','outside','[1]','2026-11-27T12:54:12.149920Z');
CREATE TABLE sessiondb_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "sessiondb_meta" VALUES('incarnations',5);
CREATE INDEX adk_sessions_forks ON adk_sessions (app_name, forked_user_id, forked_session_id) WHERE forked_seq IS NOT NULL;
CREATE INDEX adk_events_log ON adk_events (app_name, user_id, session_id);
CREATE INDEX adk_events_identity ON adk_events (incarnation, event_hash);
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
