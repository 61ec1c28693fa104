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
INSERT INTO "adk_events" VALUES(1,'scripted_app','user_123','conversation','e-51e4149f-8f24-4be6-b4b8-d317e1ffed4a','user','2026-11-27T12:53:00.514820Z','{"parts":[{"text":"remember a and b"}],"role":"user"}','{"state_delta":{}}',NULL,1,1,'6459b870-36eb-46b2-a7a5-19e8e5339ede',1.79578398051482033734e+09,1,-3540282561447127588);
INSERT INTO "adk_events" VALUES(2,'scripted_app','user_123','conversation','e-51e4149f-8f24-4be6-b4b8-d317e1ffed4a','scripted_agent','2026-11-27T12:53:00.763212Z','{"parts":[{"function_call":{"id":"adk-e13c005f-8f73-4559-ab2f-e640ab4c7ae7","args":{"thing":"a"},"name":"remember"}},{"function_call":{"id":"adk-736b327c-8ee5-4875-b1e8-47948d3af18b","args":{},"name":"look_back"}},{"function_call":{"id":"adk-d64b138f-baad-4536-b6fa-60e3ed1bc6fb","args":{"thing":"b"},"name":"remember"}}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":3},"node_info":{"path":"scripted_agent@1"},"long_running_tool_ids":[]}',2,2,'03987b01-9f1c-46f3-a077-c74893cee77d',1.79578398076321172713e+09,1,8530942695835659070);
INSERT INTO "adk_events" VALUES(3,'scripted_app','user_123','conversation','e-51e4149f-8f24-4be6-b4b8-d317e1ffed4a','scripted_agent','2026-11-27T12:53:00.823443Z','{"parts":[{"function_response":{"id":"adk-e13c005f-8f73-4559-ab2f-e640ab4c7ae7","name":"remember","response":{"remembered":"a","so_far":1}}},{"function_response":{"id":"adk-736b327c-8ee5-4875-b1e8-47948d3af18b","name":"look_back","response":{"things":["a"],"temp":"a"}}},{"function_response":{"id":"adk-d64b138f-baad-4536-b6fa-60e3ed1bc6fb","name":"remember","response":{"remembered":"b","so_far":2}}}],"role":"user"}','{"state_delta":{"things":["a","b"],"user:count":2,"app:last":{"thing":"b","length":1}}}','{"node_info":{"path":"scripted_agent@1"}}',3,3,'1e2974e8-a2cb-4407-8086-810fc3d345d3',1.79578398082344269752e+09,1,3446680900977210225);
INSERT INTO "adk_events" VALUES(4,'scripted_app','user_123','conversation','e-51e4149f-8f24-4be6-b4b8-d317e1ffed4a','scripted_agent','2026-11-27T12:53:00.837120Z','{"parts":[{"text":"done"}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":1},"node_info":{"path":"scripted_agent@1"}}',4,4,'f61b2cc3-81b5-400d-8c85-6c3920bb823f',1795783980.83712,1,-8959669132458720374);
INSERT INTO "adk_events" VALUES(5,'scripted_app','user_123','conversation','e-bd3c4bb6-441c-4327-8655-efe3158b276a','user','2026-11-27T12:53:00.971538Z','{"parts":[{"text":"and?"}],"role":"user"}','{"state_delta":{}}',NULL,5,5,'a7f1c0ae-f6c4-442c-bec1-e8d877ac1665',1.79578398097153782843e+09,1,-1221600637664681712);
INSERT INTO "adk_events" VALUES(6,'scripted_app','user_123','conversation','e-bd3c4bb6-441c-4327-8655-efe3158b276a','scripted_agent','2026-11-27T12:53:01.062781Z','{"parts":[{"text":"again"}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":1},"node_info":{"path":"scripted_agent@1"}}',6,6,'a5373467-acab-4dde-a599-764ae0ce2442',1.79578398106278133393e+09,1,8570269318581333887);
INSERT INTO "adk_events" VALUES(7,'my_app','user_123','sess_abc','inv_0','agent','2026-11-27T12:53:01.093386Z','{"parts":[{"text":"日本 0","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":0,"user:count":0,"gone":null}}',NULL,1,1,'ae49557e-f08b-494d-8fb3-b6b234f26589',1.79578398109338569638e+09,2,-6384177678483304089);
INSERT INTO "adk_events" VALUES(8,'my_app','user_123','sess_abc','inv_1','agent','2026-11-27T12:53:01.098030Z','{"parts":[{"text":"日本 1","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":1,"user:count":1,"gone":null}}',NULL,2,2,'9df484ef-3d9d-42b9-a410-2b17264a1ce2',1.79578398109802961348e+09,2,-3531228352200599361);
INSERT INTO "adk_events" VALUES(9,'my_app','user_123','sess_abc','inv_2','agent','2026-11-27T12:53:01.106543Z','{"parts":[{"text":"日本 2","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":2,"user:count":2,"gone":null}}',NULL,3,3,'4969dfc3-183b-45ea-b494-0982705971cc',1.79578398110654258732e+09,2,8310434144626331320);
INSERT INTO "adk_events" VALUES(10,'my_app','user_123','sess_abc','update-67388b75-369f-4229-b291-b02109365f95','user','2026-11-27T12:53:01.111558Z',NULL,'{"state_delta":{"outside":[1],"app:version":null}}',NULL,4,3,'ac2a963c-2e22-47d5-86af-721cba154a32',1.79578398111155819894e+09,2,2409049366560649031);
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
    log_epoch    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (app_name, user_id, session_id)
);
INSERT INTO "adk_sessions" VALUES('scripted_app','user_123','conversation','2026-11-27T12:52:59.136887Z','2026-11-27T12:53:01.062781Z',1.79578398106278133393e+09,1,6,6,0);
INSERT INTO "adk_sessions" VALUES('my_app','user_123','sess_abc','2026-11-27T12:53:01.088521Z','2026-11-27T12:53:01.111558Z',1.79578398111155819894e+09,2,3,4,0);
INSERT INTO "adk_sessions" VALUES('my_app','user_123','empty','2026-11-27T12:53:01.116580Z','2026-11-27T12:53:01.116580Z',1.79578398111658024791e+09,3,0,0,0);
INSERT INTO "adk_sessions" VALUES('my_app','%_''"','odd ids','2026-11-27T12:53:01.124680Z','2026-11-27T12:53:01.124680Z',1795783981.12468,4,0,0,0);
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
INSERT INTO "adk_state" VALUES('scripted_app','user_123','conversation','SESSION','things','["a","b"]','2026-11-27T12:53:00.823443Z');
INSERT INTO "adk_state" VALUES('scripted_app','user_123',NULL,'USER','count','2','2026-11-27T12:53:00.823443Z');
INSERT INTO "adk_state" VALUES('scripted_app',NULL,NULL,'APP','last','{"thing":"b","length":1}','2026-11-27T12:53:00.823443Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','grün','[1,2.5,null,{"🤖":true}]','2026-11-27T12:53:01.088521Z');
INSERT INTO "adk_state" VALUES('my_app','user_123',NULL,'USER','theme','"dark"','2026-11-27T12:53:01.088521Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','number','2','2026-11-27T12:53:01.106543Z');
INSERT INTO "adk_state" VALUES('my_app','user_123',NULL,'USER','count','2','2026-11-27T12:53:01.106543Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','outside','[1]','2026-11-27T12:53:01.111558Z');
CREATE TABLE sessiondb_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "sessiondb_meta" VALUES('incarnations',5);
CREATE INDEX adk_sessions_updated ON adk_sessions (update_time, user_id, session_id, app_name);
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
