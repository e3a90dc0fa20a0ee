"""What games tell about themselves beside their pictures: one file per protocol."""
