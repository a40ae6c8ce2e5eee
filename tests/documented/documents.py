"""The settings files and the defaults of options as documented, to the letter."""

ENGINES_CONFIG = """\
# engines_config.yaml
ollama: {api_base: "http://localhost:11434", timeout: 300, auto_pull: true, verify_ssl: false}
transformers: {device: auto, torch_dtype: auto, trust_remote_code: true, cache_dir: ./cache/models}    # torch_dtype also fp16, fp32
cache: {max_size: 5, ttl: 3600, strategy: lru}                                                         # or lfu
"""  # noqa: E501
ENV = """\
# .env
POSTGRES_USER=mlflow
POSTGRES_PASSWORD=mlflow
POSTGRES_DB=mlflow
MLFLOW_S3_ENDPOINT_URL=http://<lakefs>:8001
AWS_ACCESS_KEY_ID=<lakefs key>
AWS_SECRET_ACCESS_KEY=<lakefs secret>
MLFLOW_DEFAULT_ARTIFACT_ROOT=s3://mlflow-artifacts/
MLFLOW_BACKEND_STORE_URI=postgresql://${POSTGRES_USER}:${POSTGRES_PASSWORD}@postgres:5432/${POSTGRES_DB}
"""
COMMON_DEFAULTS = {
    "max_length": 512,
    "max_new_tokens": 256,
    "min_length": 10,
    "do_sample": True,
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 50,
    "num_beams": 1,
    "early_stopping": False,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "num_return_sequences": 1,
    "pad_token_id": None,
    "eos_token_id": None,
    "timeout": 60,
}
OLLAMA_DEFAULTS = {
    "num_predict": 128,
    "repeat_penalty": 1.1,
    "mirostat": 0,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
    "num_ctx": 2048,
    "num_thread": None,
}
