"""From folders of videos and pictures to a TFDS data set of clips."""
