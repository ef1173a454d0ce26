"""MCR config (draft)."""
from ml_collections import config_dict


def get_config(arg: str = "synth"):
    c = config_dict.ConfigDict()
    c.task = "mcr"
    c.seed = 0
    c.seeds = ()
    c.data = config_dict.ConfigDict(dict(name="affect_synth", dir="", aligned=False, format="auto", cache_dir="", seed=0, max_length=config_dict.ConfigDict(), train="train", valid="valid", test="test", holdout=0.0, split="test", standardize=("audio", "vision"), resident_mib=512.0, threads=2))
    c.model = config_dict.ConfigDict(dict(name="mcr", modalities=(), kernels=config_dict.ConfigDict(dict(text=3, audio=3, vision=3)), width=40, heads=10, layers=3))
    c.optim = config_dict.ConfigDict(dict(name="adam", learning_rate=1e-3, clip_norm=1.0))
    c.stages = config_dict.ConfigDict(dict(train=config_dict.ConfigDict(dict(epochs=20, batch_size=64, select="loss", patience=0))))
    c.train = config_dict.ConfigDict(dict(eval_batch_size=64, checkpoint_epochs=1, checkpoint_steps=0, progress=True))
    c.parallel = config_dict.ConfigDict(dict(engine="pmap", coordinator="", processes=1, process=0))
    if arg == "mosi":
        c.data.name = "mosi"
    return c
