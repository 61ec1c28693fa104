PRAGMA application_id=1397052228;
PRAGMA user_version=1;
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
INSERT INTO "adk_events" VALUES(1,'scripted_app','user_123','conversation','e-a7e5aa01-30c4-4aa5-b255-23542f78b78c','user','2026-11-26T11:06:43.282479Z','{"parts":[{"text":"remember a and b"}],"role":"user"}','{"state_delta":{}}',NULL,1,1,'f15e464f-b34e-4b68-8891-e207d1ea31a9',1.79569120328247880933e+09,1,1477696182049147084);
INSERT INTO "adk_events" VALUES(2,'scripted_app','user_123','conversation','e-a7e5aa01-30c4-4aa5-b255-23542f78b78c','scripted_agent','2026-11-26T11:06:43.475516Z','{"parts":[{"function_call":{"id":"adk-b3c965c3-0b16-4432-ab3e-3844503e4c56","args":{"thing":"a"},"name":"remember"}},{"function_call":{"id":"adk-0d3b14e6-e2e1-4570-9a85-ae581d608e5e","args":{},"name":"look_back"}},{"function_call":{"id":"adk-e9bdf232-7417-4cf4-8df8-124bc9e28b9e","args":{"thing":"b"},"name":"remember"}}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":3},"node_info":{"path":"scripted_agent@1"},"long_running_tool_ids":[]}',2,2,'9a8a21f2-2ba5-44cc-bdb2-198488012566',1.795691203475515604e+09,1,1676703832007985715);
INSERT INTO "adk_events" VALUES(3,'scripted_app','user_123','conversation','e-a7e5aa01-30c4-4aa5-b255-23542f78b78c','scripted_agent','2026-11-26T11:06:43.490482Z','{"parts":[{"function_response":{"id":"adk-b3c965c3-0b16-4432-ab3e-3844503e4c56","name":"remember","response":{"remembered":"a","so_far":1}}},{"function_response":{"id":"adk-0d3b14e6-e2e1-4570-9a85-ae581d608e5e","name":"look_back","response":{"things":["a"],"temp":"a"}}},{"function_response":{"id":"adk-e9bdf232-7417-4cf4-8df8-124bc9e28b9e","name":"remember","response":{"remembered":"b","so_far":2}}}],"role":"user"}','{"state_delta":{"things":["a","b"],"user:count":2,"app:last":{"thing":"b","length":1}}}','{"node_info":{"path":"scripted_agent@1"}}',3,3,'8e898361-0733-4310-a6bc-a82512982296',1.79569120349048161507e+09,1,-8271568044047628862);
INSERT INTO "adk_events" VALUES(4,'scripted_app','user_123','conversation','e-a7e5aa01-30c4-4aa5-b255-23542f78b78c','scripted_agent','2026-11-26T11:06:43.502302Z','{"parts":[{"text":"done"}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":1},"node_info":{"path":"scripted_agent@1"}}',4,4,'1391f806-e2e7-4779-a9f8-faa701b7c33f',1.7956912035023024082e+09,1,563999055900203987);
INSERT INTO "adk_events" VALUES(5,'scripted_app','user_123','conversation','e-0c869bf1-fe7a-44fd-bb2b-069bd1872c2f','user','2026-11-26T11:06:43.530210Z','{"parts":[{"text":"and?"}],"role":"user"}','{"state_delta":{}}',NULL,5,5,'2821af11-b7b8-4781-bce7-6417355b520a',1.79569120353020954131e+09,1,-7192174012247552156);
INSERT INTO "adk_events" VALUES(6,'scripted_app','user_123','conversation','e-0c869bf1-fe7a-44fd-bb2b-069bd1872c2f','scripted_agent','2026-11-26T11:06:43.540611Z','{"parts":[{"text":"again"}],"role":"model"}','{"state_delta":{}}','{"partial":false,"usage_metadata":{"candidates_token_count":1},"node_info":{"path":"scripted_agent@1"}}',6,6,'3e483743-97c3-4c1d-adae-def104141815',1.79569120354061055187e+09,1,-5949486819236058009);
INSERT INTO "adk_events" VALUES(7,'my_app','user_123','sess_abc','inv_0','agent','2026-11-26T11:06:43.548210Z','{"parts":[{"text":"日本 0","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":0,"user:count":0,"gone":null}}',NULL,1,1,'cbf7ca24-e912-46e9-aec4-abe566a93675',1.79569120354821038249e+09,2,5885027498591768608);
INSERT INTO "adk_events" VALUES(8,'my_app','user_123','sess_abc','inv_1','agent','2026-11-26T11:06:43.552250Z','{"parts":[{"text":"日本 1","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":1,"user:count":1,"gone":null}}',NULL,2,2,'867d0590-9335-40c9-80cd-27292f5b3fb8',1.79569120355225038529e+09,2,-1447148974059757751);
INSERT INTO "adk_events" VALUES(9,'my_app','user_123','sess_abc','inv_2','agent','2026-11-26T11:06:43.560420Z','{"parts":[{"text":"日本 2","thought":true},{"inline_data":{"data":"AP8=","mime_type":"a/b"}}],"role":"model"}','{"state_delta":{"number":2,"user:count":2,"gone":null}}',NULL,3,3,'07ca15ef-43e5-47bd-aa3d-0a8ecaeb0d36',1.79569120356041979792e+09,2,2547609882010428249);
INSERT INTO "adk_events" VALUES(10,'my_app','user_123','sess_abc','update-01631536-817b-4f80-810f-c94b1ce54aa0','user','2026-11-26T11:06:43.561568Z',NULL,'{"state_delta":{"outside":[1],"app:version":null}}',NULL,4,3,'b3d223fa-03aa-4847-aa9d-317f54d0e717',1.79569120356156778335e+09,2,5432780077526965089);
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
INSERT INTO "adk_sessions" VALUES('scripted_app','user_123','conversation','2026-11-26T11:06:41.752127Z','2026-11-26T11:06:43.540611Z',1.79569120354061055187e+09,1,6,6,0);
INSERT INTO "adk_sessions" VALUES('my_app','user_123','sess_abc','2026-11-26T11:06:43.545941Z','2026-11-26T11:06:43.561568Z',1.79569120356156778335e+09,2,3,4,0);
INSERT INTO "adk_sessions" VALUES('my_app','user_123','empty','2026-11-26T11:06:43.562439Z','2026-11-26T11:06:43.562439Z',1.7956912035624394417e+09,3,0,0,0);
INSERT INTO "adk_sessions" VALUES('my_app','%_''"','odd ids','2026-11-26T11:06:43.563078Z','2026-11-26T11:06:43.563078Z',1.79569120356307768823e+09,4,0,0,0);
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
INSERT INTO "adk_state" VALUES('scripted_app','user_123','conversation','SESSION','things','["a","b"]','2026-11-26T11:06:43.490482Z');
INSERT INTO "adk_state" VALUES('scripted_app','user_123',NULL,'USER','count','2','2026-11-26T11:06:43.490482Z');
INSERT INTO "adk_state" VALUES('scripted_app',NULL,NULL,'APP','last','{"thing":"b","length":1}','2026-11-26T11:06:43.490482Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','grün','[1,2.5,null,{"🤖":true}]','2026-11-26T11:06:43.545941Z');
INSERT INTO "adk_state" VALUES('my_app','user_123',NULL,'USER','theme','"dark"','2026-11-26T11:06:43.545941Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','number','2','2026-11-26T11:06:43.560420Z');
INSERT INTO "adk_state" VALUES('my_app','user_123',NULL,'USER','count','2','2026-11-26T11:06:43.560420Z');
INSERT INTO "adk_state" VALUES('my_app','user_123','sess_abc','SESSION','outside','[1]','2026-11-26T11:06:43.561568Z');
CREATE TABLE sessiondb_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "sessiondb_meta" VALUES('incarnations',5);
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
