"""The image model: input pipeline, augmentation, backbones, network, training."""
