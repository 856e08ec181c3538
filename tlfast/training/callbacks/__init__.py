"""fastai callbacks of a training: what happens at an event of the training loop goes here, one concern per module.

To add a callback, write a `fastai.callback.core.Callback` in a module of its own and attach it where it applies: to every phase in
`phase.fit_phase`, to the phases that train the backbone in `requested.build_callbacks`. A callback with `state_dict` and `load_state_dict` is
saved in checkpoints under its class name. Experiment trackers do not belong here: they will have a package of their own, `training/trackers/`.
"""
