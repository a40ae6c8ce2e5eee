"""Workers: one process per loaded model of an in-house engine, behind one small interface."""
